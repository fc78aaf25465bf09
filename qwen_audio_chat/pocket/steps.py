"""What the steps of the recipe share: the work folder, running programs, and running another step."""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError

DEFAULT_WORK = Path("build/pocket")


def add_work_argument(parser: argparse.ArgumentParser) -> None:
    """The option `--work`, the folder of all data and models of the recipe."""
    parser.add_argument("--work", type=Path, default=DEFAULT_WORK, help="work folder (default: %(default)s)")


def require_model(folder: str | Path) -> None:
    """Check that a folder holds a model.

    Raises:
        UserError: it has no `config.json`.
    """
    if not Path(folder, "config.json").is_file():
        raise UserError("{folder} holds no model to start from.", folder=folder)


def run_program(command: Sequence[str | Path], **options: Any) -> subprocess.CompletedProcess:
    """`subprocess.run`, with a sentence where the program isn't installed.

    Raises:
        UserError: there is no such program.
    """
    try:
        return subprocess.run(command, **options)
    except FileNotFoundError as error:
        raise UserError(
            "The program {program} is not installed. qwen_audio_chat/pocket/__init__.py lists what the recipe needs.",
            program=command[0],
        ) from error


def run_step(step: str, work: Path, *options: str) -> None:
    """Run a step in a process of its own, so that its memory is freed when it ends.

    Raises:
        UserError: the step failed; it has printed the reason.
    """
    command = [sys.executable, "-m", __package__, step, "--work", str(work), *options]
    if subprocess.run(command).returncode:
        raise UserError("The step {step} failed.", step=step)
