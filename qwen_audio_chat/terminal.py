"""The command line: chat about audio files, and transcribe folders. Answers go to standard output, all else to
standard error, so that both can be piped.
"""

import argparse
import json
import sys
from pathlib import Path

from .audio import AudioError, load_audio
from .chatml import Conversation
from .generation import GenerationOptions
from .transcription import Segment, to_srt, transcribe

AUDIO_SUFFIXES = {".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".m4a", ".aac", ".webm", ".mp4", ".mov", ".mkv"}
DEFAULT_QUESTION = "What is in this audio?"


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Which model, from where, on what: the same for every command that loads one."""
    parser.add_argument("--model", help="hub id or folder (default: Qwen-Audio-Chat with a GPU, else the pocket)")
    parser.add_argument("--device", default="auto", choices=["auto", "cuda", "mps", "cpu"])
    parser.add_argument("--quantization", default="auto", choices=["auto", "none", "int8", "int4"])
    parser.add_argument("--hub", default="huggingface", choices=["huggingface", "modelscope"])
    parser.add_argument("--offline", action="store_true", help="never reach for a network")


def load_from(args: argparse.Namespace):
    """The `AudioChat` that `add_model_arguments` describes."""
    from .pipeline import load

    return load(args.model, device=args.device, quantization=args.quantization, hub=args.hub, offline=args.offline)


def add_chat_arguments(parser: argparse.ArgumentParser) -> None:
    """`chat --audio a.wav --audio b.mp3 --text "..."`."""
    add_model_arguments(parser)
    parser.add_argument("--audio", action="append", default=[], metavar="FILE", help="an audio file; may be repeated")
    parser.add_argument("--text", help="the question; without it, talk interactively")
    parser.add_argument("--max-new-tokens", type=int, default=512)
    parser.add_argument("--sample", action="store_true", help="sample instead of taking the likeliest words")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--top-p", type=float, default=0.5)
    parser.add_argument("--seed", type=int)
    parser.set_defaults(run=run_chat)


def run_chat(args: argparse.Namespace) -> int:
    """Answer once, or turn by turn until the end of input."""
    options = GenerationOptions(
        args.max_new_tokens, args.sample, temperature=args.temperature, top_p=args.top_p, seed=args.seed
    )
    for path in args.audio:
        load_audio(path)  # a wrong file is told before a model is loaded
    chat = load_from(args)
    session, conversation = chat.new_session(), Conversation()
    if args.text is not None:
        _say(chat, conversation.ask(args.text, args.audio), options, session)
        return 0
    print('Type a question; "/audio FILE" adds an audio, an empty line or Ctrl-D ends.', file=sys.stderr)
    waiting = list(args.audio)
    while line := _read_line():
        if line.startswith("/audio "):
            waiting.append(line.removeprefix("/audio ").strip())
            continue
        try:
            _say(chat, conversation.ask(line, waiting), options, session)
            waiting = []
        except ValueError as error:
            conversation.pop()
            waiting = []
            print(f"Error: {error}", file=sys.stderr)
    return 0


def _read_line() -> str:
    print("> ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip()


def _say(chat, conversation: Conversation, options: GenerationOptions, session) -> None:
    reply = chat.stream(conversation, options, session=session)
    for piece in reply:
        print(piece, end="", flush=True)
    print(flush=True)
    for notice in reply.notices:
        print(notice, file=sys.stderr)
    conversation.answer(reply.text, reply.token_ids)


def add_transcribe_arguments(parser: argparse.ArgumentParser) -> None:
    """`transcribe FOLDER`: for each audio file NAME, NAME.txt, NAME.json and NAME.srt."""
    add_model_arguments(parser)
    parser.add_argument("folder", type=Path, help="an audio file, or a folder searched for audio files")
    parser.add_argument("--output", type=Path, help="where transcripts go (default: beside each file)")
    parser.set_defaults(run=run_transcribe)


def run_transcribe(args: argparse.Namespace) -> int:
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
