"""The paper's multi-task format: a task as hierarchical tags, and the model's answer as structured data.

Order of the tags (arXiv 2311.07919, section 2.2, spelled as in the released tokenizer): transcription or analysis,
audio language, task, text language, timestamps, output instruction. Their ids are the tokenizer's business.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import UserError

LANGUAGES = ("en", "zh", "de", "es", "ko", "fr", "ja", "it")
TASKS = ("transcribe", "translate", "caption", "keyword", "question")
SILENCE = "<|sil|>"
TIMES_BEGIN = "<|0.00|>"  # the first time of a transcript; it stands in the prompt
TIME = re.compile(r"<\|(\d{1,2}\.\d{2})\|>")  # a time token; the group holds its seconds
TAG = re.compile(r"<\|[^|<>]*\|>")


@dataclass(frozen=True)
class TaskPrompt:
    """A task in the hierarchical format.

    Args:
        task: one of `TASKS`; "keyword" covers every closed-set analysis (scene, emotion, vocal sound, note).
        audio_language: what is spoken, or "unknown" where nothing is.
        text_language: language of the answer.
        timestamps: word-level times in the answer (transcribe only, as released).
        instruction: the sub-task or format, such as "wo_itn", "itn", "caption_clotho", "scene",
            "emotion_recognition", "vocal_classification", "note_analysis"; None for none.
        question: for task "question", what is asked.

    Raises:
        UserError: the task is unknown, or a question is missing or out of place.
    """

    task: str
    audio_language: str = "en"
    text_language: str = "en"
    timestamps: bool = False
    instruction: str | None = None
    question: str | None = None

    def __post_init__(self):
        if self.task not in TASKS:
            raise UserError("Unknown task {task!r}: choose one of {tasks}.", task=self.task, tasks=", ".join(TASKS))
        if (self.task == "question") != (self.question is not None):
            raise UserError('The task "question" needs a question, and no other task takes one.')

    def pieces(self) -> list[tuple[str, bool]]:
        """The prompt after the audio as (text, is_tag) pairs: tags are control, a question is plain text."""
        opening = "startoftranscript" if self.task in ("transcribe", "translate") else "startofanalysis"
        names = [opening, self.audio_language]
        if self.question is not None:
            tags = [(f"<|{name}|>", True) for name in [*names, "question"]]
            return [*tags, (self.question, False), ("<|answer|>", True)]
        names += [self.task, self.text_language, "timestamps" if self.timestamps else "notimestamps"]
        if self.timestamps:
            names.append("0.00")
        elif self.instruction:
            names.append(self.instruction)
        return [(f"<|{name}|>", True) for name in names]

    def __str__(self) -> str:
        return "".join(text for text, _ in self.pieces())


@dataclass(frozen=True)
class TimedWord:
    """A word with its start and end in seconds."""

    start: float
    end: float
    word: str


@dataclass(frozen=True)
class Note:
    """A musical note as NSynth describes it; None or empty where the answer doesn't say."""

    pitch: int | None = None  # MIDI number
    velocity: int | None = None  # MIDI velocity
    instrument: str | None = None
    qualities: tuple[str, ...] = ()


def default_audio_language(task: str, instruction: str | None = None) -> str:
    """The audio language where a line of data names none: English speech, or for most analyses any sound."""
    of_speech = instruction in ("emotion_recognition", "vocal_classification")
    return "unknown" if task in ("keyword", "caption") and not of_speech else "en"


def strip_tags(text: str) -> str:
    """The text without any tag, spaces collapsed."""
    return " ".join(TAG.sub(" ", text).split())


def show_times(text: str) -> str:
    """The text for a reader: time tokens become plain seconds, other tags go."""
    apart = re.sub(r"(?<=\S)(?=<\|\d)|(?<=\d\|>)(?=[\w<])", " ", text)
    return TAG.sub("", TIME.sub(r"\1", apart)).strip()


def parse_words(text: str) -> list[TimedWord]:
    """Words with times from a transcript such as `<|sil|><|0.54|>one<|0.86|>two<|1.17|>`.

    A word stands between its start and its end; one token may end a word and start the next. The first time,
    `<|0.00|>`, is part of the prompt and is assumed where the text doesn't begin with a time.
    """
    pieces = TIME.split(text)  # text, time, text, time, ..., text
    words, start = [], 0.0
    for i in range(0, len(pieces) - 1, 2):
        end = float(pieces[i + 1])
        word = strip_tags(pieces[i])
        if word and end >= start:
            words.append(TimedWord(start, end, word))
        start = end
    return words


def write_words(words: Iterable[TimedWord]) -> str:
    """Words as a model writes them after the prompt's `<|0.00|>`: `<|sil|><|0.56|>one<|0.88|>two<|1.20|>`."""
    text, clock = "", 0.0
    for word in words:
        if word.start - clock >= 0.005:
            text += f"{SILENCE}<|{word.start:.2f}|>"
        text += f"{word.word}<|{word.end:.2f}|>"
        clock = word.end
    return text


def time_spans(text: str) -> list[tuple[float, float]]:
    """(start, end) pairs of a grounding answer: `... starts at <|2.33|> seconds and ends at <|3.26|> seconds.`

    An odd number of times, or an end before its start, gives no span.
    """
    times = [float(t) for t in TIME.findall(text)]
    if len(times) % 2:
        return []
    return [(a, b) for a, b in zip(times[::2], times[1::2], strict=True) if a < b]


def parse_note(text: str) -> Note:
    """A note from `<|pitch|><|midi_pitch_60|><|velocity|><|midi_velocity_75|><|instrument|>organ<|sonic|>dark, ...`."""

    def number(name: str) -> int | None:
        match = re.search(rf"<\|midi_{name}_(\d+)\|>", text)
        return int(match.group(1)) if match else None

    def words(name: str) -> str:
        match = re.search(rf"<\|{name}\|>([^<]*)", text)
        return match.group(1).strip() if match else ""

    qualities = tuple(word.strip() for word in words("sonic").split(",") if word.strip())
    return Note(number("pitch"), number("velocity"), words("instrument") or None, qualities)
