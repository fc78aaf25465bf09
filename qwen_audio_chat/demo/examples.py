"""The gallery: real clips with a question each, listed in `assets/examples/examples.json`."""

import json
from pathlib import Path
from typing import TypedDict

from ..audio.audio import Audio
from .spectrogram import save_picture


class Example(TypedDict):
    """A card of the gallery."""

    files: list[str]
    title: dict[str, str]  # by language
    question: dict[str, str]
    picture: str  # path of the spectrogram of the first clip


def load_examples(folder: Path, pictures: Path) -> list[Example]:
    """Read the gallery; empty where the folder has no list.

    Args:
        folder: holds `examples.json`, a list of {"files": [names], "title": {"en", "zh"}, "question": {"en", "zh"}}.
        pictures: folder to draw the spectrograms into.

    Returns:
        The list with absolute paths, and a "picture" for each example.
    """
    index = folder / "examples.json"
    if not index.is_file():
        return []
    pictures.mkdir(parents=True, exist_ok=True)
    examples: list[Example] = []
    for number, entry in enumerate(json.loads(index.read_text(encoding="utf-8"))):
        files = [str(folder / name) for name in entry["files"]]
        picture = pictures / f"example-{number}.png"
        save_picture(Audio.load(files[0]), picture)
        examples.append(Example(files=files, title=entry["title"], question=entry["question"], picture=str(picture)))
    return examples
