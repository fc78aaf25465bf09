"""Training examples from manifests, which are files of data lines. See `data/lines.py` for the format."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from ..audio.audio import Audio
from ..audio.cutting import MAX_CLIP_SECONDS
from ..data.lines import (
    ClipLine,
    DataError,
    DialogueLine,
    OfficialLine,
    audio_paths,
    located,
    parse_json,
    parse_line,
    read_text_lines,
)
from ..prompts.messages import Message, conversation_audios
from ..prompts.tags import TaskPrompt, TimedWord, default_audio_language, parse_note
from .settings import OnError

SPLITS = ("train", "dev", "test")
END_TOLERANCE = 0.1  # seconds by which the last word may end after its clip, since both are measured
MAX_REPORTED_LINES = 20

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Clip:
    """One labelled clip.

    Attributes:
        origin: "file:line", for messages.
        audio: the audio file.
        prompt: the task as tags.
        text: the reference answer.
        words: the words with their times in seconds, for a task with timestamps.
        seconds: length of the clip, where the line gives it.
        alignment_text: what the frames learn to say in the alignment, where the line gives it ("heard" on disk). See
            `alignment_targets.py`.
    """

    origin: str
    audio: Path
    prompt: TaskPrompt
    text: str
    words: tuple[TimedWord, ...] = ()
    seconds: float | None = None
    alignment_text: str | None = None

    @property
    def audios(self) -> list[Path]:
        """The clip's one audio."""
        return [self.audio]


@dataclass(frozen=True)
class Dialogue:
    """One conversation; its audios are paths in the messages."""

    origin: str
    messages: tuple[Message, ...]
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
    on_error: OnError = "raise",
    check_audio: bool = True,
) -> list[Example]:
    """Read manifests.

    Args:
        paths: JSONL files.
        split: keep only lines of this split.
        default_split: the split of a line that names none.
        on_error: refuse the whole manifest, or log a warning for each bad line and leave it out.
        check_audio: decode every audio now, so that a broken one is found before hours of training. The manifests of
            the shipped model's recipe don't need it: their audio was checked when it was written.

    Raises:
        DataError: with every bad line (the first 20 in words), if `on_error` is "raise"; or no example is left.
    """
    examples, errors = [], []
    for path in map(Path, paths):
        for origin, text in read_text_lines(path):
            try:
                with located(origin):
                    line = parse_line(parse_json(text))
                    if line.split and line.split not in SPLITS:
                        raise DataError('"split" must be one of {splits}.', splits=", ".join(SPLITS))
                    if split is None or (line.split or default_split) == split:
                        examples.append(_example(line, origin, path.parent, check_audio))
            except DataError as error:
                errors.append(str(error))
    if errors and on_error == "raise":
        reported = errors[:MAX_REPORTED_LINES]
        if len(errors) > len(reported):
            reported.append(f"... and {len(errors) - len(reported)} more")
        raise DataError(
            "{count} bad {lines}; nothing was read.\n{reported}",
            count=len(errors),
            lines="line" if len(errors) == 1 else "lines",
            reported="\n".join(reported),
        )
    for error in errors:
        log.warning("skipped %s", error)
    if not examples:
        of_split = f" of the split {split!r}" if split else ""
        raise DataError("The manifests hold no usable example{of_split}.", of_split=of_split)
    return examples


def _example(line: ClipLine | OfficialLine | DialogueLine, origin: str, folder: Path, check_audio: bool) -> Example:
    if isinstance(line, OfficialLine):
        raise DataError('a line to learn from needs "audio" and "text", or "messages".')
    paths = audio_paths(line.audio, folder)
    example = _clip(line, origin, paths) if isinstance(line, ClipLine) else _dialogue(line, origin, paths)
    if check_audio:
        for path in paths:
            Audio.load(path)
    return example


def _clip(line: ClipLine, origin: str, paths: list[Path]) -> Clip:
    if len(paths) != 1 or len(line.text) != 1:
        raise DataError("a line to learn from has one audio and one text.")
    task = line.task or "transcribe"
    instruction = line.instruction or ("wo_itn" if task == "transcribe" and not line.timestamps else None)
    audio_language = line.audio_language or default_audio_language(task, instruction)
    prompt = TaskPrompt(
        task,
        audio_language=audio_language,
        text_language=line.text_language or (audio_language if task == "transcribe" else "en"),
        timestamps=line.timestamps,
        instruction=instruction,
        question=line.question,
    )
    text = line.text[0].strip()
    if not text:
        raise DataError("the text is empty.")
    if instruction == "note_analysis" and None in ((note := parse_note(text)).pitch, note.velocity, note.instrument):
        raise DataError("a note's text needs tags of its pitch, velocity and instrument.")
    words = _timed_words(line)
    if line.timestamps and not words:
        raise DataError('a line with timestamps needs "words": [[start, end, "word"], ...].')
    return Clip(origin, paths[0], prompt, text, words, line.seconds, line.alignment_text)


def _timed_words(line: ClipLine) -> tuple[TimedWord, ...]:
    words = tuple(TimedWord(start, end, word) for start, end, word in line.words)
    if not all(each.word.strip() for each in words):
        raise DataError("a word with times is empty.")
    times = [0.0, *(time for word in words for time in (word.start, word.end)), MAX_CLIP_SECONDS]
    if not all(before <= after for before, after in pairwise(times)):
        raise DataError("the times of the words must rise from 0 to {longest} seconds.", longest=MAX_CLIP_SECONDS)
    if words and words[-1].end > (line.seconds or MAX_CLIP_SECONDS) + END_TOLERANCE:
        raise DataError("the last word ends after the clip.")
    return words


def _dialogue(line: DialogueLine, origin: str, paths: list[Path]) -> Dialogue:
    roles = [turn.role for turn in line.messages if turn.role != "system"]
    if roles[:1] == ["assistant"]:
        raise DataError("a dialogue begins with a user's message.")
    if "assistant" not in roles:
        raise DataError("a dialogue needs at least one assistant's message to learn from.")
    if any(turn.role == "assistant" and not turn.text.strip() for turn in line.messages):
        raise DataError("an assistant's message is empty.")
    return Dialogue(origin, tuple(line.to_messages(paths)), line.seconds)


def audio_seconds(example: Example) -> float:
    """Seconds of audio in an example: as its line says, or measured by decoding."""
    if example.seconds is not None:
        return example.seconds
    return sum(Audio.load(path).seconds for path in example.audios)
