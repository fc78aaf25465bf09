"""What the audio frames of a clip should say: the words by which the alignment names what is heard.

English speech says its own words. Any other sound is named as one would tell it: a dog, "German dog" for the word Hund,
"guitar C sharp 4 loud" for a note. So the encoder learns to tell sounds, languages and notes apart where that is cheap,
and the language model meets their names where it reads speech, too.
"""

from dataclasses import dataclass

from transformers import PreTrainedTokenizerFast

from ..prompts.questions import UNKNOWN
from ..prompts.tags import parse_note
from .alignment import ctc_targets, name_targets
from .dialogues import loudness, note_name
from .manifest import Clip, Example


@dataclass(frozen=True)
class AlignmentTarget:
    """What a clip's frames say.

    Attributes:
        words: in tokens; "" where nobody can name it.
        letters: in the letters of the `ctc_head`, which spell English speech alone: "" for sounds, None where they
            learn nothing, as from another language.
    """

    words: str
    letters: str | None

    def tokens(self, tokenizer: PreTrainedTokenizerFast) -> list[int]:
        """Ids of the words: of what is said in common pieces, of a name as they are."""
        return ctc_targets(tokenizer, self.words) if self.letters else name_targets(tokenizer, self.words)


def alignment_target(example: Example) -> AlignmentTarget | None:
    """What the alignment learns from an example; None for a dialogue, or a task that it knows nothing of."""
    if not isinstance(example, Clip):
        return None
    prompt = example.prompt
    if prompt.task == "transcribe" and prompt.audio_language == "en":
        return AlignmentTarget(example.text, example.text)
    if example.heard is not None:
        return AlignmentTarget(example.heard, None) if example.heard else None
    if prompt.task != "keyword":
        return None
    if prompt.instruction == "note_analysis":
        note = parse_note(example.text)
        name = note_name(note.pitch).replace("#", " sharp ")
        return AlignmentTarget(f"{note.instrument} {name} {loudness(note.velocity)}", "")
    return AlignmentTarget("" if example.text == UNKNOWN else example.text, "")
