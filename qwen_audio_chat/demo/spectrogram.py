"""The picture of what the model hears: a log-mel spectrogram as a PNG that suits a light and a dark page."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..audio.audio import Audio
from ..audio.features import HOP_LENGTH

MAX_WIDTH = 2000  # pixels; the frames of longer audios are averaged

# Colours (red, green, blue, opacity) at levels of loudness from quiet to loud; silence is transparent.
_LEVELS = np.array([0.0, 0.35, 0.7, 1.0])
_COLOURS = np.array([[99, 102, 241, 0], [99, 102, 241, 110], [217, 70, 239, 220], [251, 146, 60, 255]], dtype=float)


def save_picture(audio: Audio, path: Path) -> None:
    """Draw the log-mel spectrogram of an audio: 80 bands high, 10 ms a pixel. The encoder uses the same log-mels."""
    mel = torch.cat([_pool(piece.log_mel(), audio.num_samples) for piece in audio.pieces()], dim=1)
    low, high = mel.min(), mel.max()
    loudness = ((mel - low) / (high - low).clamp(min=1e-6)).flip(0).numpy()
    rgba = np.stack([np.interp(loudness, _LEVELS, channel) for channel in _COLOURS.T], axis=-1)
    Image.fromarray(rgba.astype(np.uint8), "RGBA").save(path)


def _pool(mel: torch.Tensor, num_samples: int) -> torch.Tensor:
    """Average frames of a piece so that the picture of all `num_samples` is at most `MAX_WIDTH` wide."""
    frames = -(-num_samples // HOP_LENGTH)
    step = -(-frames // MAX_WIDTH)
    if step == 1:
        return mel
    return torch.nn.functional.avg_pool1d(mel[None], step, ceil_mode=True)[0]
