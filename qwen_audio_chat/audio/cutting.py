"""A long waveform cut into pieces of at most 30 s, where it is quietest."""

import numpy as np

from .decoding import SAMPLE_RATE

MAX_CLIP_SECONDS = 30.0
MAX_CLIP_SAMPLES = int(MAX_CLIP_SECONDS * SAMPLE_RATE)


def split_audio(waveform: np.ndarray, max_seconds: float = MAX_CLIP_SECONDS) -> list[np.ndarray]:
    """Cut a 16 kHz waveform into pieces of at most `max_seconds`, where it is quietest.

    Each cut is in the middle of the quietest 100 ms among the last 5 s of its piece (at most the later half). The
    pieces are views; joined they are the waveform again. No piece is shorter than 1 s (or half of `max_seconds`, if
    that is less), unless the whole waveform is.

    Raises:
        ValueError: `max_seconds` is under 0.01.
    """
    limit = int(max_seconds * SAMPLE_RATE)
    if limit < SAMPLE_RATE // 100:
        raise ValueError(f"max_seconds must be at least 0.01, not {max_seconds}.")
    shortest = min(SAMPLE_RATE, limit // 2)
    search = min(5 * SAMPLE_RATE, limit // 2)
    pieces = []
    while len(waveform) > limit:
        end = min(limit, len(waveform) - shortest)
        cut = _quietest(waveform, max(shortest, end - search), end)
        pieces.append(waveform[:cut])
        waveform = waveform[cut:]
    return [*pieces, waveform]


def _quietest(waveform: np.ndarray, start: int, end: int) -> int:
    """Index of the middle of the quietest 100 ms within [start, end], the last one among equals."""
    window = min(SAMPLE_RATE // 10, end - start)
    energy = np.concatenate(([0.0], np.cumsum(np.square(waveform[start:end], dtype=np.float64))))
    energies = energy[window:] - energy[:-window]
    return start + len(energies) - 1 - int(np.argmin(energies[::-1])) + window // 2
