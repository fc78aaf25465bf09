"""Write a transcript for each audio file of a folder.

Audio of any length is transcribed in pieces, each a segment of the transcript.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..answering import answer
from ..audio.cutting import pieces
from ..audio.decoding import SAMPLE_RATE, AudioError
from ..chat import AudioChat
from ..loading import add_model_arguments, load_from
from ..prompts.conversation import Conversation
from ..prompts.questions import question
from ..prompts.tags import TimedWord, strip_tags
from ..transcripts.subtitles import to_srt

AUDIO_SUFFIXES = {
    ".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".m4a", ".aac", ".amr", ".aif", ".aiff", ".caf", ".w64", ".wma",
    ".webm", ".mp4", ".mov", ".mkv",
}  # fmt: skip


def transcribe(chat: AudioChat, source: Any) -> Iterator[TimedWord]:
    """What is said in an audio of any length, piece by piece, each asked for by itself.

    Raises:
        audio.AudioError: the audio can't be used.
    """
    words = question("transcribe")
    for start, piece in pieces(source, chat.transcript_seconds):
        reply = answer(chat, Conversation().ask(words, [piece])).finish()
        yield TimedWord(round(start, 3), round(start + len(piece) / SAMPLE_RATE, 3), strip_tags(reply.text))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`transcribe FOLDER`: for each audio file NAME, NAME.txt, NAME.json and NAME.srt."""
    add_model_arguments(parser)
    parser.add_argument("folder", type=Path, help="an audio file, or a folder searched for audio files")
    parser.add_argument("--output", type=Path, help="where transcripts go (default: beside each file)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Transcribe every audio file; a broken one is told and skipped, and makes the exit code 2."""
    files, root = _audio_files(args.folder), args.folder if args.folder.is_dir() else args.folder.parent
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
        # Below the output as below the input: files of two folders may have one name.
        folder = path.parent if args.output is None else args.output / path.parent.relative_to(root)
        _write_transcript(folder, path.name, segments)
        print(f"{path.name}\t{' '.join(segment.word for segment in segments)}", flush=True)
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


def _write_transcript(folder: Path, name: str, segments: list[TimedWord]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = "\n".join(segment.word for segment in segments) + "\n"
    (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    told = [{"start": segment.start, "end": segment.end, "text": segment.word} for segment in segments]
    data = {"audio": name, "segments": told}
    (folder / f"{name}.json").write_text(json.dumps(data, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    (folder / f"{name}.srt").write_text(to_srt(segments), encoding="utf-8")
