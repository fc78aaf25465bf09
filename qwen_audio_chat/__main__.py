"""`python -m qwen_audio_chat COMMAND`: one module for each command, imported only when it is asked for."""

import argparse
import importlib
import sys

from .commands.arguments import run_command

COMMANDS = {
    "serve": (".commands.serve_command", "open the page for a browser"),
    "chat": (".commands.chat_command", "ask about audio files, once or in a conversation"),
    "transcribe": (".commands.transcribe_command", "write a transcript for each audio file of a folder"),
    "train": (".training.run", "run a stage of training, or fine-tune a model"),
    "evaluate": (".commands.evaluate_command", "measure a model on a task of the paper"),
    "benchmark": (".commands.benchmark_command", "measure how fast a model answers here"),
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; what the user did wrong is one sentence on standard error and exit code 2."""
    listing = "\n".join(f"  {name:<11} {help_text}" for name, (_, help_text) in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="python -m qwen_audio_chat",
        description=f"Talk about audio.\n\ncommands:\n{listing}",
        epilog="COMMAND --help tells the arguments of a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)

    module = importlib.import_module(COMMANDS[chosen.command][0], __package__)
    parser = argparse.ArgumentParser(prog=f"python -m qwen_audio_chat {chosen.command}")
    module.add_arguments(parser)
    args = parser.parse_args(chosen.arguments)
    return run_command(lambda: args.run(args))


if __name__ == "__main__":
    sys.exit(main())
