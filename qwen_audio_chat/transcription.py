"""Transcripts of audio of any length, a segment per piece of at most 30 s; and the command `transcribe`."""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .audio import SAMPLE_RATE, AudioError, load_audio, split_audio
from .chatml import Conversation
from .model_arguments import add_model_arguments, load_from
from .tags import strip_tags

AUDIO_SUFFIXES = {".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".m4a", ".aac", ".webm", ".mp4", ".mov", ".mkv"}
QUESTION = "What does the person say?"


@dataclass
class Segment:
    """What is said from `start` to `end`, in seconds."""

    start: float
    end: float
    text: str


def transcribe(chat, source: Any) -> Iterator[Segment]:
    """Transcribe an audio (anything that `audio.load_audio` takes) piece by piece, each asked for by itself.

    Raises:
        audio.AudioError: the audio can't be used.
    """
    start = 0.0
    for piece in split_audio(load_audio(source)):
        reply = chat.stream(Conversation().ask(QUESTION, [piece])).finish()
        end = start + len(piece) / SAMPLE_RATE
        yield Segment(round(start, 3), round(end, 3), strip_tags(reply.text))
        start = end


def to_srt(segments: Iterable[Segment]) -> str:
    """Segments as a SubRip file."""
    blocks = [
        f"{number}\n{_clock(segment.start)} --> {_clock(segment.end)}\n{segment.text}\n"
        for number, segment in enumerate(segments, start=1)
    ]
    return "\n".join(blocks)


def _clock(seconds: float) -> str:
    """Hours, minutes, seconds and milliseconds as SubRip writes them: 01:02:03,456."""
    minutes, milliseconds = divmod(round(seconds * 1000), 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{milliseconds // 1000:02},{milliseconds % 1000:03}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`transcribe FOLDER`: for each audio file NAME, NAME.txt, NAME.json and NAME.srt."""
    add_model_arguments(parser)
    parser.add_argument("folder", type=Path, help="an audio file, or a folder searched for audio files")
    parser.add_argument("--output", type=Path, help="where transcripts go (default: beside each file)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Transcribe every audio file; a broken one is told and skipped, and makes the exit code 2."""
    files = _audio_files(args.folder)
    chat = load_from(args)
    failed = 0
    for number, path in enumerate(files, start=1):
        print(f"[{number}/{len(files)}] {path.name}", file=sys.stderr)
        try:
            segments = list(transcribe(chat, path))
        except AudioError as error:
            print(f"Error: {path.name}: {error}", file=sys.stderr)
            failed += 1
            continue
        _write_transcript(args.output or path.parent, path.name, segments)
        print(f"{path.name}\t{' '.join(segment.text for segment in segments)}", flush=True)
    return 2 if failed else 0


def _audio_files(folder: Path) -> list[Path]:
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise ValueError(f"There is no folder {str(folder)!r}.")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES)
    if not files:
        raise ValueError(f"The folder {str(folder)!r} holds no audio files ({', '.join(sorted(AUDIO_SUFFIXES))}).")
    return files


def _write_transcript(folder: Path, name: str, segments: list[Segment]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = "\n".join(segment.text for segment in segments) + "\n"
    (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    data = {"audio": name, "segments": [vars(segment) for segment in segments]}
    (folder / f"{name}.json").write_text(json.dumps(data, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    (folder / f"{name}.srt").write_text(to_srt(segments), encoding="utf-8")
