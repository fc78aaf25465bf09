"""Files and folders that appear whole or not at all, and folders that belong to one run."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CARD = "README.md"


def atomic_write(path: Path, text: str) -> None:
    """Write a file, in a folder that may not be there yet; an interruption leaves either the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.tmp")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """A folder to write a model into, which gets its name, and takes the place of an older one, when all is written.

    The model card stays: people write it.

    Raises:
        ValueError: the name belongs to something else than a model, which would be lost.
    """
    card = folder / CARD
    is_model = any(folder.glob("*config.json")) or any(folder.glob("*.safetensors"))
    if folder.exists() and {*folder.iterdir()} - {card} and not is_model:
        raise ValueError(f"{folder} holds something else than a model: choose another folder.")
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    if card.exists():
        shutil.copy2(card, partial)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)


def record_run_identity(path: Path, identity: Mapping[str, Any]) -> dict[str, Any]:
    """Note in a file, if it isn't there yet, which run its folder holds.

    Returns:
        Whatever differs in the run that the folder holds already, as it is there; nothing if it is the same.
    """
    if path.exists():
        theirs = json.loads(path.read_text(encoding="utf-8"))
        return {name: theirs.get(name) for name, value in identity.items() if theirs.get(name) != value}
    atomic_write(path, json.dumps(identity, indent=2) + "\n")
    return {}
