"""Dialogues from labelled clips: written templates, several turns and audios, and silence that says nothing.

A labelled clip becomes one *fact* (what is said, which sound it is, which language). Templates ask for it in many
words; dialogues over several clips compare, find and order such facts.
"""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qwen_audio_chat.chatml import Conversation
from qwen_audio_chat.training.manifest import Clip, Dialogue

LANGUAGE_NAMES = {
    "en": "English", "zh": "Chinese", "de": "German", "es": "Spanish", "ko": "Korean", "fr": "French",
    "ja": "Japanese", "it": "Italian", "ru": "Russian",
}  # fmt: skip
_ORDINALS = ("first", "second", "third", "fourth")

TRANSCRIBE = (
    "Transcribe the audio.", "Transcribe this audio.", "What is said in the audio?", "Write down what is said.",
    "Please transcribe the speech.", "What does the person say?", "Convert the speech to text.", "What did they say?",
    "Give me the transcript.", "Recognize the speech and write it out.", "Type what you hear.", "What do you hear?",
)  # fmt: skip
SOUND = (
    "What sound is this?", "What do you hear?", "Which sound is in the audio?", "Identify the sound.", "What is this?",
    "Name the sound.", "What is making this sound?",
)  # fmt: skip
LANGUAGE = (
    "Which language is spoken?", "What language is this?", "In which language does the person speak?",
    "Identify the language.",
)  # fmt: skip
TRANSLATE = ("Translate the speech into English.", "What does this mean in English?", "Translate this to English.")
NOTHING = ("I can't hear any speech in this audio.", "There is no speech in this audio that I can make out.")
_FACTS = {"transcribe": TRANSCRIBE, "sound": SOUND, "language": LANGUAGE, "translate": TRANSLATE}


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
    if prompt.task == "keyword" and prompt.instruction in (None, "vocal_classification", "event", "scene"):
        found.append(Fact("sound", clip, clip.text))
    if prompt.task in ("transcribe", "translate") and prompt.audio_language in LANGUAGE_NAMES:
        found.append(Fact("language", clip, LANGUAGE_NAMES[prompt.audio_language]))
    return found


def _pick(rng: np.random.Generator, options: Sequence):
    return options[int(rng.integers(len(options)))]


def single(fact: Fact, rng: np.random.Generator) -> Conversation:
    """One audio, one question."""
    return Conversation().ask(_pick(rng, _FACTS[fact.kind]), [fact.clip.audio]).answer(fact.answer)


def in_turns(several: Sequence[Fact], rng: np.random.Generator) -> Conversation:
    """An audio and a question in each turn, and at times a look back at an earlier one."""
    talk = Conversation()
    for fact in several:
        talk.ask(_pick(rng, _FACTS[fact.kind]), [fact.clip.audio]).answer(fact.answer)
    if rng.random() < 0.4:
        number = int(rng.integers(len(several)))
        question = {
            "transcribe": "What was said in audio {}?",
            "sound": "And what sound was audio {}?",
            "language": "Which language was audio {} in?",
            "translate": "What did audio {} mean in English?",
        }
        talk.ask(question[several[number].kind].format(number + 1)).answer(several[number].answer)
    return talk


def about_one(several: Sequence[Fact], rng: np.random.Generator) -> Conversation:
    """Several audios at once, a question about one of them."""
    number = int(rng.integers(len(several)))
    questions = {
        "transcribe": ("What is said in audio {}?", "Transcribe audio {}.", "Transcribe the {o} audio."),
        "sound": ("What sound is audio {}?", "What do you hear in the {o} audio?"),
        "language": ("Which language is spoken in audio {}?",),
        "translate": ("Translate audio {} into English.",),
    }
    question = _pick(rng, questions[several[number].kind]).format(number + 1, o=_ORDINALS[number])
    return Conversation().ask(question, [fact.clip.audio for fact in several]).answer(several[number].answer)


def find(several: Sequence[Fact], rng: np.random.Generator) -> Conversation:
    """Several audios, and which of them holds a thing that only one of them holds."""
    number = int(rng.integers(len(several)))
    fact = several[number]
    others = [other for n, each in enumerate(several) if n != number for other in facts(each.clip)]
    if fact.kind == "transcribe":
        elsewhere = {word for other in others for word in other.answer.lower().split()}
        own = [word for word in fact.answer.lower().split() if len(word) > 4 and word not in elsewhere]
        if not own:
            return about_one(several, rng)
        template = _pick(rng, ('In which audio is the word "{}" said?', 'Which audio has the word "{}"?'))
        question = template.format(_pick(rng, own))
    else:
        if any((other.kind, other.answer) == (fact.kind, fact.answer) for other in others):
            return about_one(several, rng)
        template = {
            "sound": "Which audio is {}?",
            "language": "Which audio is in {}?",
            "translate": 'Which audio means "{}"?',
        }
        question = template[fact.kind].format(fact.answer)
    return Conversation().ask(question, [each.clip.audio for each in several]).answer(f"Audio {number + 1}.")


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
    question = _pick(rng, ("Tell me what each audio is, in order.", "What is in each of these audios?"))
    answer = "\n".join(f"Audio {n}: {fact.answer}" for n, fact in enumerate(several, 1))
    return Conversation().ask(question, [fact.clip.audio for fact in several]).answer(answer)


def nothing_there(audio: Path, rng: np.random.Generator) -> Conversation:
    """Silence or noise, and a question that it can't answer."""
    return Conversation().ask(_pick(rng, TRANSCRIBE), [audio]).answer(_pick(rng, NOTHING))


def dialogues(clips: Sequence[Clip], count: int, seed: int = 0, longest: float = 24.0) -> list[Dialogue]:
    """Draw dialogues over labelled clips.

    Args:
        clips: the material; each dialogue takes one to four.
        count: how many dialogues.
        seed: of everything random.
        longest: seconds of sound in a dialogue over several clips.
    """
    rng = np.random.default_rng(seed)
    known = [found for clip in clips if (found := facts(clip))]
    shares = {"single": 0.4, "turns": 0.2, "about one": 0.12, "find": 0.16, "compare": 0.06, "order": 0.06}
    make = {"turns": in_turns, "about one": about_one, "find": find, "compare": compare, "order": order}
    result = []
    while len(result) < count:
        kind = str(rng.choice(list(shares), p=list(shares.values())))
        number = {"single": 1, "compare": 2}.get(kind) or int(rng.integers(2, 5))
        several = [_draw_fact(known[int(rng.integers(len(known)))], rng) for _ in range(number)]
        length = sum(fact.clip.seconds or 5.0 for fact in several)
        if number > 1 and length > longest:
            continue
        talk = single(several[0], rng) if kind == "single" else make[kind](several, rng)
        if talk is not None:
            result.append(Dialogue(f"dialogue {len(result) + 1} of seed {seed}", tuple(talk), length))
    return result


def _draw_fact(found: Sequence[Fact], rng: np.random.Generator) -> Fact:
    """A clip's main fact, or at times another one: most speech is English, and "English" must not become a habit."""
    return found[0] if len(found) == 1 or rng.random() < 0.9 else _pick(rng, found[1:])


def write(talks: Iterable[Dialogue], path: Path) -> None:
    """Write dialogues as a manifest, with paths relative to it."""

    def relative(part: dict) -> dict:
        return part | {"audio": os.path.relpath(part["audio"], path.parent)}

    with path.open("w", encoding="utf-8") as file:
        for talk in talks:
            messages = [
                message | {"content": [relative(p) if p["type"] == "audio" else p for p in message["content"]]}
                if isinstance(message["content"], list) else message
                for message in talk.messages
            ]  # fmt: skip
            file.write(json.dumps({"messages": messages, "seconds": talk.seconds}, ensure_ascii=False) + "\n")
