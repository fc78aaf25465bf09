"""The picture of what the model hears: a log-mel spectrogram as a PNG that fits a light and a dark page."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..audio.cutting import split_audio
from ..audio.features import HOP_LENGTH, log_mel

MAX_WIDTH = 2000  # pixels; longer audios are averaged

# Colours from quiet to loud; what is silent is transparent.
_STOPS = np.array([0.0, 0.35, 0.7, 1.0])
_COLOURS = np.array([[99, 102, 241, 0], [99, 102, 241, 110], [217, 70, 239, 220], [251, 146, 60, 255]], dtype=float)


def save_picture(waveform: np.ndarray, path: Path) -> None:
    """Draw the log-mel spectrogram of a 16 kHz waveform, float32 [samples]: 80 bands high, 10 ms a pixel."""
    mel = torch.cat([_pooled(log_mel(piece), len(waveform)) for piece in split_audio(waveform)], dim=1)
    low, high = mel.min(), mel.max()
    loudness = ((mel - low) / (high - low).clamp(min=1e-6)).flip(0).numpy()
    rgba = np.stack([np.interp(loudness, _STOPS, channel) for channel in _COLOURS.T], axis=-1)
    Image.fromarray(rgba.astype(np.uint8), "RGBA").save(path)


def _pooled(mel: torch.Tensor, num_samples: int) -> torch.Tensor:
    """Average frames, so that the whole picture has at most `MAX_WIDTH` pixels."""
    frames = -(-num_samples // HOP_LENGTH)
    step = -(-frames // MAX_WIDTH)
    if step == 1:
        return mel
    return torch.nn.functional.avg_pool1d(mel[None], step, ceil_mode=True)[0]
