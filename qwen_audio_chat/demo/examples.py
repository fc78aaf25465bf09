"""The gallery: real clips with a question each, described in `assets/examples/examples.json`."""

import json
from pathlib import Path

from ..audio.decoding import load_audio
from .spectrogram import save_picture


def load_examples(folder: Path, pictures: Path) -> list[dict]:
    """Read the gallery; none where the folder has no list.

    Args:
        folder: holds `examples.json`, a list of {"files": [names], "title": {"en", "zh"}, "question": {"en", "zh"}}.
        pictures: where the spectrogram of each example's first clip is drawn.

    Returns:
        The list, with whole paths, and the picture's path under "picture".
    """
    index = folder / "examples.json"
    if not index.is_file():
        return []
    pictures.mkdir(parents=True, exist_ok=True)
    examples = json.loads(index.read_text(encoding="utf-8"))
    for number, example in enumerate(examples):
        example["files"] = [str(folder / name) for name in example["files"]]
        picture = pictures / f"example-{number}.png"
        save_picture(load_audio(example["files"][0]), picture)
        example["picture"] = str(picture)
    return examples
