"""Evaluation data: the official JSONL files, manifests of this project, and Hugging Face data sets."""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ..prompts.messages import content_parts
from ..prompts.tags import LANGUAGES, TASKS
from ..prompts.tokenizer import INSTRUCTION_TAGS

OFFICIAL_FIELDS = frozenset({"audio", "gt", "source", "question"})
MANIFEST_FIELDS = frozenset(
    "audio text source question task audio_language text_language timestamps instruction words".split()
)
NOTE_FIELDS = frozenset(
    (
        "id speaker split suite set group language seconds duration written heard label instrument pitch velocity "
        "licence license"
    ).split()
)
"""Notes about a clip that asking and scoring don't need; all other fields are mistakes."""

DIALOGUE_FIELDS = frozenset({"messages", "source"})
LANGUAGE_TAGS = (*LANGUAGES, "zh_tr", "unknown")
OPTIONS = {
    "question": None,
    "task": TASKS,
    "audio_language": LANGUAGE_TAGS,
    "text_language": LANGUAGE_TAGS,
    "instruction": [name for name in INSTRUCTION_TAGS if not name.startswith("midi_")],  # those are answers
}
"""Fields that say how to ask, with their values; None for any text."""

log = logging.getLogger(__name__)


class DataError(ValueError):
    """What is wrong with evaluation data, as one sentence that names the line."""


@dataclass(frozen=True)
class Sample:
    """One thing to ask and what should be answered.

    Attributes:
        index: place in the data, from 0; names the sample in the predictions.
        name: the audio as the data calls it.
        audios: the path of each clip, or a function that gives its bytes, in the order of the question.
        task, timestamps, instruction: as in `tags.TaskPrompt`, where the line tells them.
        references: right answers, one or more.
        official: comes from a file in the official format, whose scores follow the released scripts by default.
        messages: for a dialogue, its turns before the answer, each audio a place in `audios`.
    """

    index: int
    name: str
    audios: tuple[Path | Callable[[], bytes], ...]
    references: tuple[str, ...]
    source: str = ""
    question: str | None = None
    task: str | None = None
    audio_language: str | None = None
    text_language: str | None = None
    instruction: str | None = None
    timestamps: bool = False
    words: tuple[tuple[float, float, str], ...] = ()
    official: bool = False
    messages: tuple[dict[str, Any], ...] = field(default=(), repr=False)


def read_jsonl(path: str | Path, audio_folder: Path | None = None, split: str | None = None) -> list[Sample]:
    """Read a JSONL file whose audio paths are relative to `audio_folder`, by default the file's own.

    Lines are `{"audio", "gt", "source"[, "question"]}` (official), `{"audio", "text", ...}` (this project), or
    dialogues `{"messages": [...]}`, whose last answer is the reference. `gt` and `text` may be a list of references.
    Where lines name splits, a line without one belongs to "train", as in training.

    Args:
        path: the file.
        audio_folder: where audio paths start.
        split: keep only lines of this split, which may be none; what else is in a file that was made for training
            doesn't matter, so fields aren't checked. By default all but "train", which a warning counts.

    Raises:
        DataError: the file or an audio is missing, or a line is malformed; the message tells the line.
    """
    path = Path(path)
    rows = list(_rows(path))
    unnamed = "train" if split is not None or any("split" in row for _, row in rows) else None
    if split is not None:
        kept = [(where, row) for where, row in rows if row.get("split", unnamed) == split]
    else:
        kept = [(where, row) for where, row in rows if row.get("split", unnamed) != "train"]
        if not kept:
            but = ' but those of the split "train", which need --split train' if rows else ""
            raise DataError(f"The data file {path} has no samples{but}.")
        if left_out := len(rows) - len(kept):
            message = '%s: left out %d of %d lines, which are of the split "train"; measure them with --split train.'
            log.warning(message, path, left_out, len(rows))
        for where, row in kept:
            _check_fields(row, where)
    folder = audio_folder or path.parent
    return [_sample(row, index, folder, where) for index, (where, row) in enumerate(kept)]


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each line that isn't empty, with its place for messages."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # splitlines() would split inside texts, too
    except OSError as error:
        raise DataError(f"The data file {path} can't be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"The data file {path} isn't UTF-8 text; is it a JSONL file?") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            where = f"{path.name}, line {number}"
            yield where, _row(line, where)


def _row(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: half of a character (a lone surrogate such as \\ud83d) isn't text.") from error
    except (ValueError, RecursionError) as error:  # also numbers of thousands of digits, and thousands of brackets
        raise DataError(f"{where}: this isn't JSON ({getattr(error, 'msg', error)}).") from error
    if not isinstance(row, dict):
        raise DataError(f'{where}: a line must be a JSON object such as {{"audio": "clip.wav", "text": "..."}}.')
    return row


def _sample(row: dict[str, Any], index: int, folder: Path, where: str) -> Sample:
    if "messages" in row:
        return _dialogue(row, index, folder, where)
    official = "gt" in row
    _need(row, ("audio", "gt" if official else "text"), where)
    names = row["audio"] if isinstance(row["audio"], list) else [row["audio"]]
    references = row["gt"] if official else row["text"]
    references = references if isinstance(references, list) else [references]
    if not references or not all(isinstance(text, str) for text in references):
        raise DataError(f'{where}: "{"gt" if official else "text"}" must be a text or a list of texts.')
    return Sample(
        index=index,
        name=" + ".join(map(str, names)),
        audios=_audio_paths(names, folder, where),
        references=tuple(references),
        source=str(row.get("source") or ""),
        words=_words(row.get("words") or [], where),
        timestamps=bool(row.get("timestamps")),
        official=official,
        **{name: _option(row, name, values, where) for name, values in OPTIONS.items()},
    )


def _option(row: dict, name: str, values: Sequence[str] | None, where: str) -> str | None:
    value = row.get(name)
    if not isinstance(value, str | None):
        raise DataError(f'{where}: "{name}" must be a text.')
    if value and values and value not in values:
        raise DataError(f'{where}: there is no {name} "{value}"; choose one of {", ".join(values)}.')
    return value or None


def _dialogue(row: dict, index: int, folder: Path, where: str) -> Sample:
    """The turns before the last answer are asked; audios in them become places in a list of paths."""
    _need(row, ("messages",), where)
    names, messages = [], []
    try:
        for message in row["messages"]:
            parts = [dict(part) for part in content_parts(message)]
            for part in parts:
                if part["type"] == "audio":
                    names.append(part["audio"])
                    part["audio"] = len(names) - 1
            messages.append({"role": message["role"], "content": parts})
        *messages, answer = messages
    except (AttributeError, TypeError, ValueError) as error:
        raise DataError(
            f'{where}: "messages" must be turns with a "role" (system, user or assistant) and a "content": a text, or '
            'parts {"type": "text", "text": "..."} and, from the user, {"type": "audio", "audio": "clip.wav"}.'
        ) from error
    reference = "".join(part.get("text", "") for part in answer["content"])
    if answer["role"] != "assistant" or not messages or not reference.strip():
        raise DataError(f"{where}: a dialogue must end with an assistant's text, the reference, after what is asked.")
    audios = _audio_paths(names, folder, where)
    return Sample(
        index=index,
        name=" + ".join(map(str, names)),
        audios=audios,
        references=(reference,),
        source=str(row.get("source") or ""),
        messages=tuple(messages),
    )


def _need(row: dict, names: tuple[str, ...], where: str) -> None:
    for name in names:
        if row.get(name) is None:
            raise DataError(f'{where}: the field "{name}" is missing.')


def _check_fields(row: dict, where: str) -> None:
    known = DIALOGUE_FIELDS if "messages" in row else OFFICIAL_FIELDS if "gt" in row else MANIFEST_FIELDS
    if unknown := sorted(row.keys() - known - NOTE_FIELDS):
        raise DataError(f'{where}: there is no field "{unknown[0]}"; known fields are {", ".join(sorted(known))}.')


def _audio_paths(names: list[Any], folder: Path, where: str) -> tuple[Path, ...]:
    if not all(isinstance(name, str) and name for name in names):
        raise DataError(f'{where}: "audio" must be the path of a file.')
    paths = tuple(folder / name for name in names)
    for name, path in zip(names, paths, strict=True):
        if not os.path.isfile(path):  # Path.is_file() raises where a name is too long
            raise DataError(f"{where}: the audio file {name} is missing.")
    return paths


def _words(words: Any, where: str) -> tuple[tuple[float, float, str], ...]:
    try:
        return tuple((float(start), float(end), str(word)) for start, end, word in words)
    except (TypeError, ValueError) as error:
        raise DataError(f'{where}: "words" must be a list of [start_s, end_s, "word"].') from error


def read_hub(name: str, split: str, *, config: str | None = None, text_column: str = "text") -> list[Sample]:
    """Read a Hugging Face data set (hub name or local folder) with an `audio` column, and `question` if it has one.

    Audio stays encoded (`Audio(decode=False)`); `audio.load_audio` decodes it, so that every source sounds the same.

    Raises:
        DataError: the data set can't be had or lacks a column.
    """
    try:
        from datasets import Audio, load_dataset
    except ImportError as error:
        raise DataError("Reading Hugging Face data sets needs one more package: pip install datasets.") from error
    try:
        table = load_dataset(name, config, split=split)
    except Exception as error:  # the library raises whatever its readers and the network raise
        raise DataError(f'The data set "{name}" (split "{split}") can\'t be read: {error}') from error
    for column in ("audio", text_column):
        if column not in table.column_names:
            raise DataError(f'The data set "{name}" has no column "{column}"; it has {", ".join(table.column_names)}.')
    rows = table.cast_column("audio", Audio(decode=False))
    return list(_hub_samples(rows, f"{Path(name).name}_{config or ''}_{split}".replace("__", "_"), text_column))


def _hub_samples(rows, source: str, text_column: str) -> Iterator[Sample]:
    for index, row in enumerate(rows):
        audio, text = row["audio"], row[text_column]
        yield Sample(
            index=index,
            name=Path(audio["path"] or f"{index}").name,
            # Bytes are read again when they are needed, so that a whole data set never is in memory.
            audios=(partial(_encoded, rows, index) if audio["bytes"] else Path(audio["path"]),),
            references=tuple(text) if isinstance(text, list) else (str(text),),
            source=source,
            question=row.get("question"),
        )


def _encoded(rows, index: int) -> bytes:
    return rows[index]["audio"]["bytes"]


def fingerprint(samples: list[Sample]) -> str:
    """A short hash of all that is asked and scored, sound included: whether predictions belong to these samples."""
    content = [vars(sample) | {"audios": [*map(_digest, sample.audios)]} for sample in samples]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _digest(audio: Path | Callable[[], bytes]) -> str:
    if callable(audio):
        return hashlib.sha256(audio()).hexdigest()
    with audio.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
