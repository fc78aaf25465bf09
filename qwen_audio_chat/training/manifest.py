"""Training data as JSON lines: labelled clips for the multi-task format, and dialogues.

    {"audio": "clip.flac", "text": "hello there"}
    {"audio": "bell.wav", "task": "keyword", "audio_language": "unknown", "instruction": "vocal_classification",
     "text": "bell", "split": "train"}
    {"messages": [{"role": "user", "content": [{"type": "audio", "audio": "a.wav"}, {"type": "text", "text": "Who?"}]},
                  {"role": "assistant", "content": "A dog."}]}

Paths are relative to the manifest's folder. What is wrong with a line is told with its number; fields that aren't known
are left alone.
"""

import json
import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from ..audio.cutting import MAX_CLIP_SECONDS
from ..audio.decoding import SAMPLE_RATE, AudioError, load_audio
from ..prompts.messages import content_parts, conversation_audios
from ..prompts.tags import TaskPrompt, TimedWord, default_audio_language, parse_note
from ..prompts.tokenizer import INSTRUCTION_TAGS, TASK_TAGS

SPLITS = ("train", "dev", "test")
_TEXTS = ("audio", "text", "task", "audio_language", "text_language", "instruction", "question", "heard", "split")
_TAGS = {f"<|{name}|>" for name in (*TASK_TAGS, *INSTRUCTION_TAGS, "0.00")}
_TOLERANCE = 0.1  # seconds by which what measures a word may be beside what measures its clip
log = logging.getLogger(__name__)


class ManifestError(ValueError):
    """What is wrong with a manifest: file, line number and reason."""


@dataclass(frozen=True)
class Clip:
    """One labelled clip.

    Attributes:
        origin: "file:line", for messages.
        audio: the sound file.
        prompt: the task as tags.
        text: the reference answer.
        words: the words with their times in seconds, for timestamps.
        seconds: how long the clip is, where the line tells it.
        heard: what the frames learn to say in the alignment, where the line tells it. See `alignment_targets.py`.
    """

    origin: str
    audio: Path
    prompt: TaskPrompt
    text: str
    words: tuple[TimedWord, ...] = ()
    seconds: float | None = None
    heard: str | None = None

    @property
    def audios(self) -> list[Path]:
        """The clip's one audio."""
        return [self.audio]


@dataclass(frozen=True)
class Dialogue:
    """One conversation; its audios are paths in the messages. See `chatml` for the form."""

    origin: str
    messages: tuple[dict, ...]
    seconds: float | None = None

    @property
    def audios(self) -> list[Path]:
        """All audios, in the order of the messages."""
        return conversation_audios(self.messages)


Example = Clip | Dialogue


def read_manifests(
    paths: Iterable[str | Path],
    *,
    split: str | None = None,
    default_split: str = "train",
    on_error: Literal["raise", "skip"] = "raise",
    check_audio: bool = True,
) -> list[Example]:
    """Read manifests.

    Args:
        paths: JSONL files.
        split: keep only lines of this split.
        default_split: where a line belongs that names none.
        on_error: refuse the whole manifest, or report bad lines as warnings and leave them out.
        check_audio: decode every audio now, rather than meet a broken one hours later. The recipe's own manifests,
            whose lines tell `seconds`, were checked when they were written.

    Raises:
        ManifestError: with every bad line (the first 20 in words), if `on_error` is "raise"; or no example is left.
    """
    examples, errors = [], []
    for path in map(Path, paths):
        try:
            lines = path.read_text(encoding="utf-8-sig").split("\n")  # a text may hold other ends of lines
        except (OSError, UnicodeDecodeError) as error:
            raise ManifestError(f"The manifest {path} cannot be read: {error}.") from error
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                record = _record(line)
                if split is None or record.get("split", default_split) == split:
                    examples.append(_example(record, f"{path}:{number}", path.parent, check_audio))
            except (ValueError, TypeError, OSError, AudioError) as error:
                errors.append(f"{path}:{number}: {error}")
    if errors and on_error == "raise":
        more = f"\n... and {len(errors) - 20} more" if len(errors) > 20 else ""
        count = f"{len(errors)} bad line" + "s" * (len(errors) > 1)
        raise ManifestError(f"{count}; nothing was read.\n" + "\n".join(errors[:20]) + more)
    for error in errors:
        log.warning("skipped %s", error)
    if not examples:
        raise ManifestError("The manifests hold no usable example" + (f" of the split {split!r}." if split else "."))
    return examples


def _record(line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
        json.dumps(record, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg})") from error
    except RecursionError as error:
        raise ValueError("not JSON of a line: too deep") from error
    except UnicodeEncodeError as error:
        raise ValueError("a text holds half a character (a lone surrogate)") from error
    if not isinstance(record, dict):
        raise ValueError("a line must be one JSON object")
    for name in _TEXTS:
        if not isinstance(record.get(name, ""), str) and not (record[name] is None and name != "audio"):
            raise ValueError(f'"{name}" must be text')
    if record.get("split") and record["split"] not in SPLITS:
        raise ValueError(f'"split" must be one of {", ".join(SPLITS)}')
    return record


def _example(record: dict[str, Any], origin: str, folder: Path, check_audio: bool) -> Example:
    if "messages" in record:
        example = _dialogue(record, origin, folder)
    elif "audio" in record:
        example = _clip(record, origin, folder)
    else:
        raise ValueError('a line needs "audio" and "text", or "messages"')
    for audio in example.audios:
        if not audio.is_file():
            raise ValueError(f"there is no file {audio}")
        if check_audio:
            load_audio(audio)
    return example


def _clip(record: dict[str, Any], origin: str, folder: Path) -> Clip:
    task, timestamps = record.get("task") or "transcribe", record.get("timestamps", False)
    if not isinstance(timestamps, bool):
        raise ValueError('"timestamps" must be true or false')
    instruction = record.get("instruction") or ("wo_itn" if task == "transcribe" and not timestamps else None)
    audio_language = record.get("audio_language") or default_audio_language(task, instruction)
    prompt = TaskPrompt(
        task,
        audio_language=audio_language,
        text_language=record.get("text_language") or (audio_language if task == "transcribe" else "en"),
        timestamps=timestamps,
        instruction=instruction,
        question=record.get("question"),
    )
    if unknown := [tag for tag, is_tag in prompt.pieces() if is_tag and tag not in _TAGS]:
        raise ValueError(f"there is no tag {unknown[0]}")
    text = record.get("text")
    if not text or not text.strip():
        raise ValueError("the text is empty")
    if instruction == "note_analysis" and None in ((note := parse_note(text)).pitch, note.velocity, note.instrument):
        raise ValueError("a note's text needs tags of its pitch, velocity and instrument")
    told, words = _seconds(record), _words(record)
    if timestamps and not words:
        raise ValueError('a line with timestamps needs "words": [[start, end, "word"], ...]')
    if words and words[-1].end > (told or MAX_CLIP_SECONDS) + _TOLERANCE:
        raise ValueError("the last word ends after the clip")
    return Clip(origin, folder / record["audio"], prompt, text.strip(), words, told, record.get("heard"))


def _words(record: dict[str, Any]) -> tuple[TimedWord, ...]:
    words = tuple(TimedWord(float(start), float(end), word) for start, end, word in record.get("words") or ())
    if not all(isinstance(each.word, str) and each.word.strip() for each in words):
        raise ValueError("a word with times is empty, or no text")
    times = [0.0, *(time for word in words for time in (word.start, word.end)), MAX_CLIP_SECONDS]
    if not all(before <= after for before, after in pairwise(times)):
        raise ValueError(f"the times of the words must rise from 0 to {MAX_CLIP_SECONDS} seconds")
    return words


def _seconds(record: dict[str, Any]) -> float | None:
    told = record.get("seconds")
    is_number = isinstance(told, int | float) and not isinstance(told, bool)
    if told is not None and not (is_number and 0 <= told < math.inf):
        raise ValueError('"seconds" must be a number of at least 0')
    return told


def _dialogue(record: dict[str, Any], origin: str, folder: Path) -> Dialogue:
    if not isinstance(record["messages"], list) or not all(isinstance(each, dict) for each in record["messages"]):
        raise ValueError('"messages" must be a list of objects with "role" and "content"')
    messages = []
    for message in record["messages"]:
        if message.get("content") is None:
            raise ValueError("a message has no content")
        parts = [dict(part) for part in content_parts(message)]
        for part in parts:
            if part["type"] == "audio":
                if not isinstance(part["audio"], str):
                    raise ValueError('the "audio" of a part must be text')
                part["audio"] = folder / part["audio"]
        messages.append({"role": message["role"], "content": parts})
    if [message["role"] for message in messages if message["role"] != "system"][:1] == ["assistant"]:
        raise ValueError("a dialogue begins with a user's message")
    answers = [message for message in messages if message["role"] == "assistant"]
    if not answers:
        raise ValueError("a dialogue needs at least one assistant's message to learn from")
    if any(not "".join(part["text"] for part in message["content"]).strip() for message in answers):
        raise ValueError("an assistant's message is empty")
    return Dialogue(origin, tuple(messages), _seconds(record))


def seconds(example: Example) -> float:
    """Seconds of sound in an example: as its line says, or measured by decoding."""
    if example.seconds is not None:
        return example.seconds
    return sum(len(load_audio(path)) for path in example.audios) / SAMPLE_RATE
