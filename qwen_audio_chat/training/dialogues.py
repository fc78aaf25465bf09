"""Dialogues from labelled clips: written templates, several turns and audios, and questions that have no answer.

    python -m qwen_audio_chat.training.dialogues --manifest clips.jsonl --count 1000 --output dialogues.jsonl

A labelled clip becomes one *fact* (what is said, which sound it is, which language). Templates ask for it in many
words, those of `questions.py` among them; dialogues over several clips compare, find and order such facts.
"""

import argparse
import json
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import librosa
import numpy as np

from ..commands.arguments import number, run_command
from ..files import atomic_write
from ..prompts.conversation import Conversation
from ..prompts.messages import conversation_audios
from ..prompts.questions import DECLINE, LANGUAGE_NAMES, TRANSCRIBE, UNKNOWN, question
from ..prompts.tags import parse_note
from .manifest import Clip, Dialogue, read_manifests

WEIGHTS = {"transcribe": 0.35, "sound": 0.28, "language": 0.14, "translate": 0.1, "note": 0.06, "nothing": 0.07}
"""How often a clip of each kind is drawn, whatever the number of clips."""
_ORDINALS = ("first", "second", "third", "fourth")

SOUND = (
    question("sounds"), question("hear"), "Which sound is in the audio?", "Identify the sound.", "What is this?",
    "Name the sound.", "What is making this sound?",
)  # fmt: skip
LANGUAGE = (
    "Which language is spoken?", "What language is this?", "In which language does the person speak?",
    "Identify the language.",
)  # fmt: skip
TRANSLATE = (question("translate"), "What does this mean in English?", "Translate this to English.")
NOTE = (question("note"), "What note is this?", "Describe the musical note.")
_FACTS = {
    "transcribe": (*TRANSCRIBE, question("hear")), "sound": SOUND, "language": LANGUAGE, "translate": TRANSLATE,
    "note": NOTE, "nothing": (*TRANSCRIBE, *SOUND, *LANGUAGE, *TRANSLATE),
}  # fmt: skip


@dataclass(frozen=True)
class Fact:
    """One thing to ask about a clip: its kind (a key of the templates), the clip, and the answer."""

    kind: str
    clip: Clip
    answer: str


def facts(clip: Clip) -> list[Fact]:
    """What the label of a clip tells."""
    prompt, found = clip.prompt, []
    if prompt.task == "transcribe" and not prompt.timestamps and prompt.audio_language == prompt.text_language:
        found.append(Fact("transcribe", clip, clip.text))
    if prompt.task == "translate":
        found.append(Fact("translate", clip, clip.text))
    if prompt.task == "keyword" and prompt.instruction == "note_analysis":
        note = parse_note(clip.text)
        found.append(Fact("note", clip, f"{note.instrument}, {note_name(note.pitch)}, {loudness(note.velocity)}"))
    elif prompt.task == "keyword" and prompt.instruction in (None, "vocal_classification", "event", "scene"):
        found.append(Fact("nothing", clip, DECLINE) if clip.text == UNKNOWN else Fact("sound", clip, clip.text))
    if prompt.task in ("transcribe", "translate") and prompt.audio_language in LANGUAGE_NAMES:
        found.append(Fact("language", clip, LANGUAGE_NAMES[prompt.audio_language][0]))
    if prompt.task == "question" and prompt.question in LANGUAGE:
        found.append(Fact("language", clip, clip.text))
    return found


def note_name(pitch: int) -> str:
    """A MIDI pitch as people write it: 60 is C4."""
    return librosa.midi_to_note(pitch, unicode=False)


def loudness(velocity: int) -> str:
    """A MIDI velocity, 0 to 127, in a word."""
    return "soft" if velocity < 50 else "loud" if velocity > 100 else "medium loud"


def _pick(rng: np.random.Generator, options: Sequence):
    return options[int(rng.integers(len(options)))]


def single(several: Sequence[Fact], rng: np.random.Generator) -> Conversation:
    """One audio, one question."""
    [fact] = several
    return Conversation().ask(_pick(rng, _FACTS[fact.kind]), [fact.clip.audio]).answer(fact.answer)


def in_turns(several: Sequence[Fact], rng: np.random.Generator) -> Conversation:
    """An audio and a question in each turn, and at times a look back at an earlier one."""
    talk = Conversation()
    for fact in several:
        talk.ask(_pick(rng, _FACTS[fact.kind]), [fact.clip.audio]).answer(fact.answer)
    if rng.random() < 0.4:
        number = int(rng.integers(len(several)))
        words = {
            "transcribe": "What was said in audio {}?",
            "sound": "And what sound was audio {}?",
            "language": "Which language was audio {} in?",
            "translate": "What did audio {} mean in English?",
            "note": "Which note was audio {}?",
            "nothing": "What was audio {}?",
        }
        talk.ask(words[several[number].kind].format(number + 1)).answer(several[number].answer)
    return talk


def about_one(several: Sequence[Fact], rng: np.random.Generator) -> Conversation:
    """Several audios at once, a question about one of them."""
    number = int(rng.integers(len(several)))
    questions = {
        "transcribe": ("What is said in audio {}?", "Transcribe audio {}.", "Transcribe the {o} audio."),
        "sound": ("What sound is audio {}?", "What do you hear in the {o} audio?"),
        "language": ("Which language is spoken in audio {}?",),
        "translate": ("Translate audio {} into English.",),
        "note": ("Which note is audio {}?",),
        "nothing": ("What is said in audio {}?", "What do you hear in the {o} audio?"),
    }
    words = _pick(rng, questions[several[number].kind]).format(number + 1, o=_ORDINALS[number])
    return Conversation().ask(words, [fact.clip.audio for fact in several]).answer(several[number].answer)


def find(several: Sequence[Fact], rng: np.random.Generator) -> Conversation:
    """Several audios, and which of them holds a thing that only one of them holds."""
    number = int(rng.integers(len(several)))
    fact = several[number]
    others = [other for n, each in enumerate(several) if n != number for other in facts(each.clip)]
    unsure = fact.kind == "language" and any(
        each is not fact and each.kind == "translate" and len(facts(each.clip)) == 1 for each in several
    )  # it may be in the same language
    if fact.kind in ("note", "nothing") or unsure:
        return about_one(several, rng)
    if fact.kind == "transcribe":
        elsewhere = {word for other in others for word in other.answer.lower().split()}
        own = [word for word in fact.answer.lower().split() if len(word) > 4 and word not in elsewhere]
        if not own:
            return about_one(several, rng)
        template = _pick(rng, ('In which audio is the word "{}" said?', 'Which audio has the word "{}"?'))
        words = template.format(_pick(rng, own))
    else:
        if any((other.kind, other.answer) == (fact.kind, fact.answer) for other in others):
            return about_one(several, rng)
        template = {
            "sound": "Which audio is {}?",
            "language": "Which audio is in {}?",
            "translate": 'Which audio means "{}"?',
        }
        words = template[fact.kind].format(fact.answer)
    return Conversation().ask(words, [each.clip.audio for each in several]).answer(f"Audio {number + 1}.")


def compare(pair: Sequence[Fact], rng: np.random.Generator) -> Conversation | None:
    """Two audios: the same sound or language, or not."""
    first, second = pair
    if first.kind != second.kind or first.kind not in ("sound", "language"):
        return None
    same = first.answer == second.answer
    what = {"sound": "the same kind of sound", "language": "in the same language"}[first.kind]
    answer = (
        f"Yes, both are {first.answer}." if same else f"No, audio 1 is {first.answer} and audio 2 is {second.answer}."
    )
    return Conversation().ask(f"Are these two audios {what}?", [first.clip.audio, second.clip.audio]).answer(answer)


def order(several: Sequence[Fact], rng: np.random.Generator) -> Conversation:
    """Several audios, all told in their order."""
    words = _pick(rng, ("Tell me what each audio is, in order.", question("hear_each")))
    answer = "\n".join(f"Audio {n}: {fact.answer}" for n, fact in enumerate(several, 1))
    return Conversation().ask(words, [fact.clip.audio for fact in several]).answer(answer)


def missing(several: Sequence[Fact], rng: np.random.Generator) -> Conversation:
    """A question about an audio that isn't there: beyond the last one, or with none at all."""
    heard = several[: int(rng.integers(len(several) + 1))]
    if not heard:
        return Conversation().ask(_pick(rng, TRANSCRIBE)).answer("There is no audio here.")
    number = len(heard) + int(rng.integers(1, 4))
    words = _pick(rng, ("What is said in audio {}?", "What do you hear in audio {}?", "Transcribe audio {}."))
    talk = Conversation().ask(words.format(number), [fact.clip.audio for fact in heard])
    return talk.answer(f"There is no audio {number}.")


def dialogues(clips: Sequence[Clip], count: int, seed: int = 0, longest: float = 18.0) -> list[Dialogue]:
    """Draw dialogues over labelled clips.

    Args:
        clips: the material; each dialogue takes one to four.
        count: how many dialogues.
        seed: of everything random.
        longest: seconds of sound in a dialogue over several clips.
    """
    rng = np.random.default_rng(seed)
    known = defaultdict(list)
    for clip in clips:
        if found := facts(clip):
            known[found[0].kind].append(found)
    weights = np.array([WEIGHTS[kind] for kind in known])
    upto = {kind: _shares([found[0].answer for found in group]).cumsum() for kind, group in known.items()}
    kinds = {  # share of each, and what makes it
        "single": (0.3, single), "turns": (0.14, in_turns), "about one": (0.12, about_one), "find": (0.28, find),
        "compare": (0.06, compare), "order": (0.05, order), "missing": (0.05, missing),
    }  # fmt: skip
    result = []
    while len(result) < count:
        kind = str(rng.choice(list(kinds), p=[share for share, _ in kinds.values()]))
        number = {"single": 1, "compare": 2}.get(kind) or int(rng.integers(2, 5))
        drawn = rng.choice(list(known), size=number, p=weights / weights.sum())
        places = [np.searchsorted(upto[each], rng.random() * upto[each][-1], side="right") for each in drawn]
        several = [_draw_fact(known[each][place], rng) for each, place in zip(drawn, places, strict=True)]
        if kind == "compare" and rng.random() < 0.5:  # two clips are seldom alike by chance
            first = several[0]
            several[1] = _pick(rng, [f for found in known[drawn[0]] for f in found if f.answer == first.answer])
        talk = kinds[kind][1](several, rng)
        if talk is None:
            continue
        seconds = {fact.clip.audio: fact.clip.seconds or 5.0 for fact in several}
        length = sum(seconds[audio] for audio in conversation_audios(talk))
        if number == 1 or length <= longest:
            result.append(Dialogue(f"dialogue {len(result) + 1} of seed {seed}", tuple(talk), length))
    return result


def _shares(answers: Sequence[str]) -> np.ndarray:
    """How often to draw each clip: a frequent answer, as the square root of its clips, lest it become a habit."""
    count = Counter(answers)
    return np.array([count[answer] ** -0.5 for answer in answers])


def _draw_fact(found: Sequence[Fact], rng: np.random.Generator) -> Fact:
    """A clip's main fact, or at times another one: most speech is English, and "English" must not become a habit."""
    return found[0] if len(found) == 1 or rng.random() < 0.9 else _pick(rng, found[1:])


def manifest_line(talk: Dialogue, folder: Path) -> str:
    """A dialogue as a line of a manifest in `folder`, with paths relative to it."""

    def relative(part: dict) -> dict:
        return part | {"audio": os.path.relpath(part["audio"], folder)}

    messages = [
        message | {"content": [relative(p) if p["type"] == "audio" else p for p in message["content"]]}
        if isinstance(message["content"], list) else message
        for message in talk.messages
    ]  # fmt: skip
    return json.dumps({"messages": messages, "seconds": talk.seconds}, ensure_ascii=False) + "\n"


def write(talks: Iterable[Dialogue], path: Path) -> None:
    """Write dialogues as a manifest."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(manifest_line(talk, path.parent) for talk in talks)


def read_labelled(manifests: Iterable[Path]) -> list[Clip]:
    """The training clips of manifests that have facts.

    Raises:
        ValueError: there is none, or a manifest is bad.
    """
    examples = read_manifests(manifests, split="train", check_audio=False)
    clips = [example for example in examples if isinstance(example, Clip) and facts(example)]
    if not clips:
        raise ValueError("The manifests hold no clip whose label tells what could be asked: give others.")
    return clips


def run(args: argparse.Namespace) -> None:
    """Make dialogues.

    Raises:
        ValueError: one sentence on what is wrong with arguments or data.
    """
    if args.output.exists():  # it may be what is to be read, or anything else that people don't want to lose
        raise ValueError(f"{args.output} is there already: delete it or choose another --output.")
    talks = dialogues(read_labelled(args.manifest), args.count, args.seed)
    atomic_write(args.output, "".join(manifest_line(talk, args.output.parent) for talk in talks))
    print(f"{len(talks)} dialogues: {args.output}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manifest", type=Path, nargs="+", required=True, help="labelled clips (JSONL)")
    parser.add_argument("--output", type=Path, required=True, help="manifest of dialogues to write")
    parser.add_argument("--count", type=number(int, 1), required=True, help="how many dialogues")
    parser.add_argument("--seed", type=number(int, 0), default=0, help="of everything random (default: 0)")
    args = parser.parse_args(arguments)
    return run_command(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
