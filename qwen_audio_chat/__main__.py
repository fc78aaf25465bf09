"""`python -m qwen_audio_chat`: one command for each thing the package does. Each imports only what it needs."""

import argparse
import sys


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; each sets `run`, which takes the parsed arguments and gives an exit code."""
    parser = argparse.ArgumentParser(prog="python -m qwen_audio_chat", description="Talk about audio.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    from . import terminal

    chat = commands.add_parser("chat", help="ask about audio files, once or in a conversation")
    terminal.add_chat_arguments(chat)
    transcribe = commands.add_parser("transcribe", help="write a transcript for each audio file of a folder")
    terminal.add_transcribe_arguments(transcribe)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run one command; what the user did wrong is one sentence on standard error and exit code 2."""
    args = build_parser().parse_args(arguments)
    try:
        return args.run(args) or 0
    except (ValueError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
