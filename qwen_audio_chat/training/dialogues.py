"""Dialogues from labelled clips, by templates: several turns and audios, and questions that have no answer.

A label states one *fact* about its clip (what is said, which sound it is, which language). Templates ask for it in many
ways, those of `questions.py` among them; dialogues over several clips compare, find and order such facts.
"""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import librosa
import numpy as np

from ..data.lines import DataError
from ..files import atomic_write
from ..prompts.messages import Message, Part, assistant_message, content_parts, conversation_audios, user_message
from ..prompts.questions import DECLINE, LANGUAGE_NAMES, TRANSCRIBE, UNKNOWN, question
from ..prompts.tags import parse_note
from .manifest import Clip, Dialogue, read_manifests

KIND_WEIGHTS = {"transcribe": 0.35, "sound": 0.28, "language": 0.14, "translate": 0.1, "note": 0.06, "nothing": 0.07}
"""How often a clip of each kind is drawn, however many clips there are of it."""
ASSUMED_SECONDS = 5.0  # length of a clip whose line gives none
_ORDINALS = ("first", "second", "third", "fourth")

SOUND_QUESTIONS = (
    question("sounds"), question("hear"), "Which sound is in the audio?", "Identify the sound.", "What is this?",
    "Name the sound.", "What is making this sound?",
)  # fmt: skip
LANGUAGE_QUESTIONS = (
    "Which language is spoken?", "What language is this?", "In which language does the person speak?",
    "Identify the language.",
)  # fmt: skip
TRANSLATION_QUESTIONS = (question("translate"), "What does this mean in English?", "Translate this to English.")
NOTE_QUESTIONS = (question("note"), "What note is this?", "Describe the musical note.")
_QUESTIONS = {
    "transcribe": (*TRANSCRIBE, question("hear")), "sound": SOUND_QUESTIONS, "language": LANGUAGE_QUESTIONS,
    "translate": TRANSLATION_QUESTIONS, "note": NOTE_QUESTIONS,
    "nothing": (*TRANSCRIBE, *SOUND_QUESTIONS, *LANGUAGE_QUESTIONS, *TRANSLATION_QUESTIONS),
}  # fmt: skip
Option = TypeVar("Option")


@dataclass(frozen=True)
class Fact:
    """One thing to ask about a clip: its kind (a key of the templates), the clip, and the answer."""

    kind: str
    clip: Clip
    answer: str


def facts(clip: Clip) -> list[Fact]:
    """The facts that the label of a clip states."""
    prompt, found = clip.prompt, []
    if prompt.task == "transcribe" and not prompt.timestamps and prompt.audio_language == prompt.text_language:
        found.append(Fact("transcribe", clip, clip.text))
    if prompt.task == "translate":
        found.append(Fact("translate", clip, clip.text))
    if prompt.task == "keyword" and prompt.instruction == "note_analysis":
        found.append(Fact("note", clip, ", ".join(describe_note(clip.text))))
    elif prompt.task == "keyword" and prompt.instruction in (None, "vocal_classification", "event", "scene"):
        found.append(Fact("nothing", clip, DECLINE) if clip.text == UNKNOWN else Fact("sound", clip, clip.text))
    if prompt.task in ("transcribe", "translate") and prompt.audio_language in LANGUAGE_NAMES:
        found.append(Fact("language", clip, LANGUAGE_NAMES[prompt.audio_language][0]))
    if prompt.task == "question" and prompt.question in LANGUAGE_QUESTIONS:
        found.append(Fact("language", clip, clip.text))
    return found


def describe_note(text: str) -> tuple[str, str, str]:
    """Instrument, pitch ("C4" for MIDI 60) and loudness of a note, in words, from a text with tags of all three."""
    note = parse_note(text)
    assert note.instrument is not None and note.pitch is not None and note.velocity is not None
    loudness = "soft" if note.velocity < 50 else "loud" if note.velocity > 100 else "medium loud"
    return note.instrument, librosa.midi_to_note(note.pitch, unicode=False), loudness


def exchange(text: str, audios: Sequence[Path], answer: str) -> list[Message]:
    """One turn: a question about audios, which stay paths, and its answer."""
    return [user_message(text, audios), assistant_message(answer)]


def _pick(rng: np.random.Generator, options: Sequence[Option]) -> Option:
    return options[int(rng.integers(len(options)))]


def single(several: Sequence[Fact], rng: np.random.Generator) -> list[Message]:
    """One audio, one question."""
    [fact] = several
    return exchange(_pick(rng, _QUESTIONS[fact.kind]), [fact.clip.audio], fact.answer)


def in_turns(several: Sequence[Fact], rng: np.random.Generator) -> list[Message]:
    """An audio and a question in each turn, and sometimes a question about an earlier audio."""
    messages = []
    for fact in several:
        messages += exchange(_pick(rng, _QUESTIONS[fact.kind]), [fact.clip.audio], fact.answer)
    if rng.random() < 0.4:
        number = int(rng.integers(len(several)))
        templates = {
            "transcribe": "What was said in audio {}?",
            "sound": "And what sound was audio {}?",
            "language": "Which language was audio {} in?",
            "translate": "What did audio {} mean in English?",
            "note": "Which note was audio {}?",
            "nothing": "What was audio {}?",
        }
        messages += exchange(templates[several[number].kind].format(number + 1), [], several[number].answer)
    return messages


def about_one(several: Sequence[Fact], rng: np.random.Generator) -> list[Message]:
    """Several audios at once, and a question about one of them."""
    number = int(rng.integers(len(several)))
    templates = {
        "transcribe": ("What is said in audio {}?", "Transcribe audio {}.", "Transcribe the {o} audio."),
        "sound": ("What sound is audio {}?", "What do you hear in the {o} audio?"),
        "language": ("Which language is spoken in audio {}?",),
        "translate": ("Translate audio {} into English.",),
        "note": ("Which note is audio {}?",),
        "nothing": ("What is said in audio {}?", "What do you hear in the {o} audio?"),
    }
    text = _pick(rng, templates[several[number].kind]).format(number + 1, o=_ORDINALS[number])
    return exchange(text, [fact.clip.audio for fact in several], several[number].answer)


def find(several: Sequence[Fact], rng: np.random.Generator) -> list[Message]:
    """Several audios, and a question which of them has something that only one of them has."""
    number = int(rng.integers(len(several)))
    fact = several[number]
    others = [other for n, each in enumerate(several) if n != number for other in facts(each.clip)]
    may_be_in_same_language = fact.kind == "language" and any(
        each is not fact and each.kind == "translate" and len(facts(each.clip)) == 1 for each in several
    )  # a translation from an unknown language
    if fact.kind in ("note", "nothing") or may_be_in_same_language:
        return about_one(several, rng)
    if fact.kind == "transcribe":
        elsewhere = {word for other in others for word in other.answer.lower().split()}
        own = [word for word in fact.answer.lower().split() if len(word) > 4 and word not in elsewhere]
        if not own:
            return about_one(several, rng)
        template = _pick(rng, ('In which audio is the word "{}" said?', 'Which audio has the word "{}"?'))
        text = template.format(_pick(rng, own))
    else:
        if any((other.kind, other.answer) == (fact.kind, fact.answer) for other in others):
            return about_one(several, rng)
        templates = {
            "sound": "Which audio is {}?",
            "language": "Which audio is in {}?",
            "translate": 'Which audio means "{}"?',
        }
        text = templates[fact.kind].format(fact.answer)
    return exchange(text, [each.clip.audio for each in several], f"Audio {number + 1}.")


def compare(pair: Sequence[Fact], rng: np.random.Generator) -> list[Message] | None:
    """Two audios, and a question whether sound or language are the same; None for facts of other kinds."""
    first, second = pair
    if first.kind != second.kind or first.kind not in ("sound", "language"):
        return None
    same = first.answer == second.answer
    what = {"sound": "the same kind of sound", "language": "in the same language"}[first.kind]
    answer = (
        f"Yes, both are {first.answer}." if same else f"No, audio 1 is {first.answer} and audio 2 is {second.answer}."
    )
    return exchange(f"Are these two audios {what}?", [first.clip.audio, second.clip.audio], answer)


def order(several: Sequence[Fact], rng: np.random.Generator) -> list[Message]:
    """Several audios, all described in their order."""
    text = _pick(rng, ("Tell me what each audio is, in order.", question("hear_each")))
    answer = "\n".join(f"Audio {n}: {fact.answer}" for n, fact in enumerate(several, 1))
    return exchange(text, [fact.clip.audio for fact in several], answer)


def missing(several: Sequence[Fact], rng: np.random.Generator) -> list[Message]:
    """A question about an audio that isn't there: beyond the last one, or without any."""
    present = several[: int(rng.integers(len(several) + 1))]
    if not present:
        return exchange(_pick(rng, TRANSCRIBE), [], "There is no audio here.")
    number = len(present) + int(rng.integers(1, 4))
    text = _pick(rng, ("What is said in audio {}?", "What do you hear in audio {}?", "Transcribe audio {}."))
    return exchange(text.format(number), [fact.clip.audio for fact in present], f"There is no audio {number}.")


def dialogues(clips: Sequence[Clip], count: int, seed: int = 0, longest: float = 18.0) -> list[Dialogue]:
    """Draw dialogues over labelled clips.

    Args:
        clips: the material; each dialogue takes one to four.
        count: how many dialogues.
        seed: of everything random.
        longest: seconds of audio in a dialogue over several clips, at most.
    """
    rng = np.random.default_rng(seed)
    facts_of_kind = defaultdict(list)  # of each kind, the facts of each clip whose main fact is of it
    for clip in clips:
        if found := facts(clip):
            facts_of_kind[found[0].kind].append(found)
    weights = np.array([KIND_WEIGHTS[kind] for kind in facts_of_kind])
    cumulative = {
        kind: _clip_weights([found[0].answer for found in group]).cumsum() for kind, group in facts_of_kind.items()
    }
    forms = {  # share of each form of dialogue, and what makes it
        "single": (0.3, single), "turns": (0.14, in_turns), "about one": (0.12, about_one), "find": (0.28, find),
        "compare": (0.06, compare), "order": (0.05, order), "missing": (0.05, missing),
    }  # fmt: skip
    result = []
    while len(result) < count:
        form = str(rng.choice(list(forms), p=[share for share, _ in forms.values()]))
        number = {"single": 1, "compare": 2}.get(form) or int(rng.integers(2, 5))
        kinds = rng.choice(list(facts_of_kind), size=number, p=weights / weights.sum())
        places = [
            np.searchsorted(cumulative[kind], rng.random() * cumulative[kind][-1], side="right") for kind in kinds
        ]
        several = [_draw_fact(facts_of_kind[kind][place], rng) for kind, place in zip(kinds, places, strict=True)]
        if form == "compare" and rng.random() < 0.5:  # two clips are seldom alike by chance
            alike = [fact for found in facts_of_kind[kinds[0]] for fact in found if fact.answer == several[0].answer]
            several[1] = _pick(rng, alike)
        messages = forms[form][1](several, rng)
        if messages is None:
            continue
        seconds = {fact.clip.audio: fact.clip.seconds or ASSUMED_SECONDS for fact in several}
        length = sum(seconds[audio] for audio in conversation_audios(messages))
        if number == 1 or length <= longest:
            result.append(Dialogue(f"dialogue {len(result) + 1} of seed {seed}", tuple(messages), length))
    return result


def _clip_weights(answers: Sequence[str]) -> np.ndarray:
    """How often to draw each clip: an answer by the square root of its clips, so that none becomes a habit."""
    count = Counter(answers)
    return np.array([count[answer] ** -0.5 for answer in answers])


def _draw_fact(found: Sequence[Fact], rng: np.random.Generator) -> Fact:
    """A clip's main fact, and sometimes another: seldom, since most speech is English, and so would be most answers."""
    return found[0] if len(found) == 1 or rng.random() < 0.9 else _pick(rng, found[1:])


def manifest_line(dialogue: Dialogue, folder: Path) -> str:
    """A dialogue as a line of a manifest in `folder`, with paths relative to it."""
    messages = [
        message
        if isinstance(message["content"], str)
        else message | {"content": [_with_relative_path(part, folder) for part in content_parts(message)]}
        for message in dialogue.messages
    ]
    return json.dumps({"messages": messages, "seconds": dialogue.seconds}, ensure_ascii=False) + "\n"


def _with_relative_path(part: Part, folder: Path) -> dict[str, Any]:
    return part | {"audio": os.path.relpath(part["audio"], folder)} if part["type"] == "audio" else {**part}


def write_dialogues(written: Iterable[Dialogue], path: Path) -> None:
    """Write dialogues as a manifest, whole or not at all."""
    atomic_write(path, "".join(manifest_line(dialogue, path.parent) for dialogue in written))


def read_labelled(manifests: Iterable[Path]) -> list[Clip]:
    """The training clips of manifests that have facts.

    Raises:
        DataError: there is none, or a manifest is bad.
    """
    examples = read_manifests(manifests, split="train", check_audio=False)
    clips = [example for example in examples if isinstance(example, Clip) and facts(example)]
    if not clips:
        raise DataError("The manifests hold no clip whose label tells what could be asked: give others.")
    return clips
