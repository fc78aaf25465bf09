"""What to ask a model and what it should answer: samples from data lines or from Hugging Face data sets."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ..data.lines import (
    DataError,
    DialogueLine,
    OfficialLine,
    audio_paths,
    located,
    parse_json,
    parse_line,
    read_text_lines,
)
from ..prompts.messages import Message

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sample:
    """One thing to ask and what should be answered.

    Attributes:
        index: place in the data, from 0; identifies the sample in the predictions.
        name: the audio as the data name it.
        audios: the path of each audio, or a function that returns its bytes, in the order of the question.
        references: right answers, one or more.
        source: the data set, where the line names it.
        question: what to ask, where the line says it.
        task, audio_language, text_language, timestamps, instruction: as in `tags.TaskPrompt`, where the line says them.
        words: (start, end, word) of each word, in seconds.
        official: comes from a file in the official format, whose scores follow the released scripts by default.
        messages: of a dialogue, the messages before the answer; each audio in them is an index into `audios`.
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
    messages: tuple[Message, ...] = field(default=(), repr=False)


def read_jsonl(path: str | Path, audio_folder: Path | None = None, split: str | None = None) -> list[Sample]:
    """Read a file of data lines, see `data/lines.py`.

    The last answer of a dialogue is its reference; "gt" and "text" may be a list of references. Where lines name
    splits, a line without one belongs to "train", as in training.

    Args:
        path: the file.
        audio_folder: where audio paths start, by default the file's own folder.
        split: keep only lines of this split, even if there are none. Such a file was made for training as well, so
            unknown fields are ignored. By default all lines but those of "train" are kept, which a warning counts.

    Raises:
        DataError: the file or an audio is missing, or a line is malformed; the message names the line.
    """
    path = Path(path)
    records = []
    for origin, text in read_text_lines(path):
        with located(origin):
            records.append((origin, parse_json(text)))
    default_split = "train" if split is not None or any("split" in record for _, record in records) else None
    if split is not None:
        kept = [(origin, record) for origin, record in records if record.get("split", default_split) == split]
    else:
        kept = [(origin, record) for origin, record in records if record.get("split", default_split) != "train"]
        if not kept:
            but_train = ' but those of the split "train", which need --split train' if records else ""
            raise DataError("The data file {path} has no samples{but_train}.", path=str(path), but_train=but_train)
        if left_out := len(records) - len(kept):
            message = '%s: left out %d of %d lines, which are of the split "train"; measure them with --split train.'
            log.warning(message, path, left_out, len(records))
    samples = []
    for index, (origin, record) in enumerate(kept):
        with located(origin):
            samples.append(_sample(record, index, audio_folder or path.parent, check_names=split is None))
    return samples


def _sample(record: dict[str, Any], index: int, folder: Path, *, check_names: bool) -> Sample:
    line = parse_line(record, check_names=check_names)
    if isinstance(line, DialogueLine):
        *asked, answer = line.to_messages(range(len(line.audio)))
        references = [line.messages[-1].text]
        if answer["role"] != "assistant" or not asked or not references[0].strip():
            raise DataError("a dialogue must end with an assistant's text, the reference, after what is asked.")
        fields: dict[str, Any] = {"messages": tuple(asked)}
    elif isinstance(line, OfficialLine):
        references = line.gt
        fields = {"official": True, "question": line.question or None}
    else:
        references = line.text
        fields = {
            "question": line.question or None,
            "task": line.task,
            "audio_language": line.audio_language,
            "text_language": line.text_language,
            "instruction": line.instruction,
            "timestamps": line.timestamps,
            "words": tuple(line.words),
        }
    audios = tuple(audio_paths(line.audio, folder))
    return Sample(index, " + ".join(line.audio), audios, tuple(references), line.source, **fields)


def read_hub(name: str, split: str, *, config: str | None = None, text_column: str = "text") -> list[Sample]:
    """Read a Hugging Face data set (hub name or local folder) with an `audio` column, and `question` if it has one.

    Audio stays encoded (`Audio(decode=False)`) and is decoded like any file, so that every source sounds the same.

    Args:
        name: of the data set, on the hub or as a folder.
        split: of the data set.
        config: configuration of the data set.
        text_column: column of the references.

    Raises:
        DataError: the data set can't be read or lacks a column.
    """
    try:
        from datasets import Audio, load_dataset  # optional
    except ImportError as error:
        raise DataError("Reading Hugging Face data sets needs one more package: pip install datasets.") from error
    try:
        table = load_dataset(name, config, split=split)
    except Exception as error:  # the library raises whatever its readers and the network raise
        raise DataError(
            'The data set "{name}" (split "{split}") can\'t be read: {reason}', name=name, split=split, reason=error
        ) from error
    for column in ("audio", text_column):
        if column not in table.column_names:
            raise DataError(
                'The data set "{name}" has no column "{column}"; it has {columns}.',
                name=name,
                column=column,
                columns=", ".join(table.column_names),
            )
    rows = table.cast_column("audio", Audio(decode=False))
    return list(_hub_samples(rows, f"{Path(name).name}_{config or ''}_{split}".replace("__", "_"), text_column))


def _hub_samples(rows: Any, source: str, text_column: str) -> Iterator[Sample]:
    for index, row in enumerate(rows):
        audio, text = row["audio"], row[text_column]
        yield Sample(
            index=index,
            name=Path(audio["path"] or f"{index}").name,
            # Bytes are read when they are needed, so that memory never holds a whole data set.
            audios=(partial(_encoded, rows, index) if audio["bytes"] else Path(audio["path"]),),
            references=tuple(text) if isinstance(text, list) else (str(text),),
            source=source,
            question=row.get("question"),
        )


def _encoded(rows: Any, index: int) -> bytes:
    return rows[index]["audio"]["bytes"]


def fingerprint(samples: list[Sample]) -> str:
    """A short hash of everything that is asked and scored, audio included; it ties predictions to their samples."""
    content = [vars(sample) | {"audios": [*map(_digest, sample.audios)]} for sample in samples]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _digest(audio: Path | Callable[[], bytes]) -> str:
    if callable(audio):
        return hashlib.sha256(audio()).hexdigest()
    with audio.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
