"""Writing clips and manifests so that no half-written one is ever read: shards grow as `.partial` files."""

import fcntl
import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from ..audio.decoding import SAMPLE_RATE
from ..files import atomic_write
from ..prompts.tags import TaskPrompt

Line = dict[str, Any]
ENGLISH = TaskPrompt("transcribe", instruction="wo_itn")


def hash_fraction(text: str) -> float:
    """A number in [0, 1) that depends on the text alone, to split data by content."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48


def write_clip(path: Path, waveform: np.ndarray) -> float:
    """Write 16 kHz 16-bit FLAC; returns the length in seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.clip(waveform, -1, 1), SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return len(waveform) / SAMPLE_RATE


def clip_line(audio: Path, prompt: TaskPrompt, text: str, seconds: float, split: str, **more: Any) -> Line:
    """One line of a manifest: a clip, its task, and the right answer.

    Args:
        audio: path below the work folder.
        more: further fields.
    """
    return {
        "audio": f"../{audio}",
        **asdict(prompt),
        "text": text,
        "seconds": round(seconds, 3),
        "split": split,
        **more,
    }


def write_shard(path: Path, items: Iterable[str], make: Callable[[str], Line | None]) -> list[Line]:
    """Make one line per item and publish all of them together; continues a shard that was interrupted.

    Args:
        path: manifest to publish (JSONL).
        items: identifiers, in order; each is made once.
        make: makes the clip of an item and returns its line, or None to leave it out.

    Returns:
        The published lines.
    """
    if path.exists():
        return read_manifest(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".jsonl.partial")
    with partial.open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # waits for another process that makes the same shard
        if path.exists():
            partial.unlink(missing_ok=True)
            return read_manifest(path)
        file.seek(0)
        text = file.read()
        complete = text[: text.rfind("\n") + 1]  # the last line may be cut off
        file.truncate(len(complete.encode()))
        records = [json.loads(line) for line in complete.splitlines()]
        done = {record["id"] for record in records}
        lines = [record["line"] for record in records if record["line"]]
        for item in items:
            if item not in done:
                line = make(item)
                lines += [line] if line else []
                file.write(json.dumps({"id": item, "line": line}, ensure_ascii=False) + "\n")
                file.flush()
        write_manifest(path, lines)
        partial.unlink()
    return lines


def write_manifest(path: Path, lines: Iterable[Line]) -> None:
    """Write a whole manifest atomically."""
    atomic_write(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def read_manifest(path: Path) -> list[Line]:
    """All lines of a manifest that this package wrote."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
