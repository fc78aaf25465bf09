"""`python -m qwen_audio_chat.pocket STEP`: the steps that make the pocket model, and its scoreboard."""

import argparse
import ast
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from ..commands.arguments import run_command

STEPS = (
    "recipe", "recordings", "sounds", "notes", "languages", "speech", "timed", "initialize", "text-dialogues",
    "restore", "release", "scoreboard",
)  # fmt: skip
"""The names of the modules, which are imported only when their step runs; the first runs all others up to release."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one step and return its exit code; 2, with one sentence on standard error, for a mistake of the user."""
    listing = "\n".join(f"  {step:<15} {_docstring(step).splitlines()[0]}" for step in STEPS)
    parser = argparse.ArgumentParser(
        prog="python -m qwen_audio_chat.pocket",
        description=f"Make and measure the pocket model.\n\nsteps:\n{listing}",
        epilog="STEP --help lists the arguments of a step.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("step", choices=STEPS, metavar="STEP")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)

    parser = argparse.ArgumentParser(
        prog=f"python -m qwen_audio_chat.pocket {chosen.step}",
        description=_docstring(chosen.step),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module = importlib.import_module(f".{_module_name(chosen.step)}", __package__)
    module.add_arguments(parser)
    args = parser.parse_args(chosen.arguments)
    return run_command(lambda: module.run(args))


def _module_name(step: str) -> str:
    return step.replace("-", "_")


def _docstring(step: str) -> str:
    """The docstring of a step's module, read without importing it."""
    source = Path(__file__).with_name(f"{_module_name(step)}.py").read_text(encoding="utf-8")
    return ast.get_docstring(ast.parse(source)) or ""


if __name__ == "__main__":
    sys.exit(main())
