"""Write a transcript for each audio file of a folder.

Audio of any length is transcribed in pieces, each a segment of the transcript. What needs PyTorch is imported where it
is used, so that a help text doesn't wait for it.
"""

import argparse
import json
import sys
from pathlib import Path

from ..audio.decoding import AudioError
from ..errors import UserError
from ..loading import add_model_arguments, load_from
from ..prompts.tags import TimedWord
from ..transcripts.subtitles import to_srt

AUDIO_SUFFIXES = {
    ".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".m4a", ".aac", ".amr", ".aif", ".aiff", ".caf", ".w64", ".wma",
    ".webm", ".mp4", ".mov", ".mkv",
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`transcribe FOLDER`: for each audio file NAME, NAME.txt, NAME.json and NAME.srt."""
    add_model_arguments(parser)
    parser.add_argument("folder", type=Path, help="an audio file, or a folder searched for audio files")
    parser.add_argument("--output", type=Path, help="where transcripts go (default: beside each file)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Transcribe every audio file; one that can't be read is reported and skipped, and makes the exit code 2."""
    from ..transcripts.transcribe import transcribe

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
        # Below --output as below the input, since files of two folders may have the same name.
        folder = path.parent if args.output is None else args.output / path.parent.relative_to(root)
        _write_transcript(folder, path.name, segments)
        print(f"{path.name}\t{' '.join(segment.word for segment in segments)}", flush=True)
    return 2 if failed else 0


def _audio_files(folder: Path) -> list[Path]:
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise UserError("There is no folder {folder!r}.", folder=str(folder))
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES)
    if not files:
        raise UserError(
            "The folder {folder!r} holds no audio files ({suffixes}).",
            folder=str(folder),
            suffixes=", ".join(sorted(AUDIO_SUFFIXES)),
        )
    return files


def _write_transcript(folder: Path, name: str, segments: list[TimedWord]) -> None:
    text = "\n".join(segment.word for segment in segments) + "\n"
    records = [{"start": segment.start, "end": segment.end, "text": segment.word} for segment in segments]
    data = json.dumps({"audio": name, "segments": records}, ensure_ascii=False, indent=1) + "\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for suffix, content in (("txt", text), ("json", data), ("srt", to_srt(segments))):
            (folder / f"{name}.{suffix}").write_text(content, encoding="utf-8")
    except OSError as error:
        raise UserError(
            "The transcript can't be written into {folder} ({reason}); choose another --output.",
            folder=str(folder),
            reason=error.strerror,
        ) from error
