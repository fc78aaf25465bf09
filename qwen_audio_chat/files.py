"""Atomic files and folders, and folders that belong to one run."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import UserError

CARD = "README.md"


@contextmanager
def _reporting_write_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            "{path} can't be written ({reason}); choose another place, or make room there.",
            path=str(path),
            reason=error.strerror or error,
        ) from error


def atomic_write(path: Path, text: str) -> None:
    """Write a file, making its folder; an interruption leaves either the old file or the new one, never a part.

    Raises:
        UserError: the place can't be written.
    """
    with _reporting_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.tmp")
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """A folder to write a model into; when all is written, it gets its name and replaces an older model there.

    The model card is kept: people write it.

    Raises:
        UserError: the folder can't be written, or exists and holds something other than a model, which would be lost.
    """
    card = folder / CARD
    is_model = any(folder.glob("*config.json")) or any(folder.glob("*.safetensors"))
    if folder.exists() and {*folder.iterdir()} - {card} and not is_model:
        raise UserError("{folder} holds something other than a model: choose another folder.", folder=folder)
    partial = folder.with_name(f"{folder.name}.partial")
    with _reporting_write_errors(folder):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        if card.exists():
            shutil.copy2(card, partial)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(partial, folder)


def record_run_identity(path: Path, identity: Mapping[str, Any]) -> dict[str, Any]:
    """Write into a file which run its folder holds, unless it says so already.

    Returns:
        The values that differ in the run that the folder already holds, as they are there; empty for the same run.
    """
    if path.exists():
        theirs = json.loads(path.read_text(encoding="utf-8"))
        return {name: theirs.get(name) for name, value in identity.items() if theirs.get(name) != value}
    atomic_write(path, json.dumps(identity, indent=2) + "\n")
    return {}
