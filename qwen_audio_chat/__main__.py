"""The commands: `qwen-audio-chat COMMAND`, or `python -m qwen_audio_chat COMMAND`.

Each has a module `commands/NAME_command.py` with `add_arguments` and `run`. The first line of the module's docstring
describes the command, and the docstring of `add_arguments` holds examples of it. Only the module of the chosen command
is imported, because most of them need PyTorch.
"""

import argparse
import ast
import importlib
import re
import sys
from pathlib import Path

from .commands.arguments import run_command

COMMANDS = (
    "serve", "chat", "transcribe", "train", "merge", "dialogues", "write-dialogues", "evaluate", "benchmark",
)  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code; 2, with one sentence on standard error, for a mistake of the user."""
    program = "qwen-audio-chat" if Path(sys.argv[0]).stem == "qwen-audio-chat" else "python -m qwen_audio_chat"
    width = max(map(len, COMMANDS))
    listing = "\n".join(f"  {name:<{width}}  {_docstrings(name)[0]}" for name in COMMANDS)
    parser = argparse.ArgumentParser(
        prog=program,
        description=f"Talk about audio.\n\ncommands:\n{listing}",
        epilog=f'"{program} COMMAND --help" lists the arguments of a command.',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)

    description, examples = _docstrings(chosen.command)
    parser = argparse.ArgumentParser(
        prog=f"{program} {chosen.command}",
        description=description,
        epilog="\n".join(["examples:", *(f"  {program} {example}" for example in examples)]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module = importlib.import_module(_module_name(chosen.command), __package__)
    module.add_arguments(parser)
    args = parser.parse_args(chosen.arguments)
    return run_command(lambda: args.run(args))


def _module_name(command: str) -> str:
    return f".commands.{command.replace('-', '_')}_command"


def _docstrings(command: str) -> tuple[str, list[str]]:
    """Description and examples of a command, read from the source of its module without importing it."""
    path = Path(__file__).parent.joinpath(*_module_name(command).split(".")).with_suffix(".py")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    examples = re.findall(rf"`({command} [^`]+)`", ast.get_docstring(functions["add_arguments"]) or "")
    return (ast.get_docstring(tree) or "").partition("\n")[0], examples


if __name__ == "__main__":
    sys.exit(main())
