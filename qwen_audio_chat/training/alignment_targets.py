"""What the alignment teaches the frames of a clip to say: its transcript, or a name of what is in it.

English speech says its own words. Any other sound is named: "dog", "German dog" for the word Hund, "guitar C sharp 4
loud" for a note. So the encoder learns to tell sounds, languages and notes apart where that is cheap, and the language
model meets their names in the same place where it reads speech.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from transformers import PreTrainedTokenizerFast

from ..prompts.questions import UNKNOWN
from .alignment import name_tokens, transcript_tokens
from .dialogues import describe_note
from .manifest import Clip, Example


@dataclass(frozen=True)
class AlignmentTarget:
    """What the frames of a clip should say.

    Attributes:
        text: for the alignment head, in tokens; "" where nobody can name the sound.
        ctc_text: for the `ctc_head`, in letters. It spells English speech only: "" for sounds, so that the head learns
            to be silent; None for other languages, from which it learns nothing.
    """

    text: str
    ctc_text: str | None

    def tokens(self, tokenizer: PreTrainedTokenizerFast) -> list[int]:
        """Ids of the text: of a transcript in common pieces, of a name as the language model writes it."""
        return transcript_tokens(tokenizer, self.text) if self.ctc_text else name_tokens(tokenizer, self.text)


def alignment_target(example: Example) -> AlignmentTarget | None:
    """What the alignment learns from an example; None where it learns nothing, as from a dialogue."""
    if not isinstance(example, Clip):
        return None
    prompt = example.prompt
    if prompt.task == "transcribe" and prompt.audio_language == "en":
        return AlignmentTarget(example.text, example.text)
    if example.alignment_text is not None:
        return AlignmentTarget(example.alignment_text, None) if example.alignment_text else None
    if prompt.task != "keyword":
        return None
    if prompt.instruction == "note_analysis":
        instrument, pitch, loudness = describe_note(example.text)
        return AlignmentTarget(f"{instrument} {pitch.replace('#', ' sharp ')} {loudness}", "")
    return AlignmentTarget("" if example.text == UNKNOWN else example.text, "")


def alignment_vocabulary(tokenizer: PreTrainedTokenizerFast, examples: Iterable[Example]) -> list[int]:
    """Ids of all tokens that the frames of some example should say."""
    targets = filter(None, map(alignment_target, examples))
    return sorted({token for target in targets for token in target.tokens(tokenizer)})
