"""A clip to log-mel features, and how many audio tokens it takes in a prompt."""

from functools import lru_cache

import librosa
import numpy as np
import torch

from .cutting import MAX_CLIP_SAMPLES, MAX_CLIP_SECONDS
from .decoding import SAMPLE_RATE, AudioError

MIN_CLIP_SAMPLES = 480  # 30 ms, the shortest clip for which the encoder gives a token
WINDOW_LENGTH = 400  # 25 ms
HOP_LENGTH = 160  # 10 ms
TOKENS_PER_SECOND = 25


def num_audio_tokens(num_samples: int) -> int:
    """Audio tokens of one clip, 40 ms each: 1 to 750.

    A clip under 480 samples counts as padded to 480 samples; the official code would give it no token.

    Raises:
        AudioError: the clip is empty or longer than 30 s.
    """
    return _num_encoder_frames(num_samples) // 2


def num_mel_tokens(mel: torch.Tensor) -> int:
    """Audio tokens of a clip by its `log_mel`, [n_mels, 2 * T]: half of the T frames."""
    return mel.shape[-1] // 4


def _num_encoder_frames(num_samples: int) -> int:
    """Frames of one clip after the encoder's convolution of stride 2: half the mel frames, rounded up."""
    if num_samples < 1:
        raise AudioError("The audio is empty: it holds no samples.")
    if num_samples > MAX_CLIP_SAMPLES:
        raise AudioError(
            "An audio clip may last {limit:g} s at most; split longer audio first.", limit=MAX_CLIP_SECONDS
        )
    return (max(num_samples, MIN_CLIP_SAMPLES) // HOP_LENGTH + 1) // 2


def log_mel(waveform: np.ndarray, n_mels: int = 80) -> torch.Tensor:
    """Log-mel spectrogram of one clip, as in Whisper (Radford et al., 2022, arXiv:2212.04356, section 2.2).

    Args:
        waveform: float [samples], 16 kHz mono, 1 to 480,000 samples; under 480 it counts as padded to 480.
        n_mels: number of mel bands.

    Returns:
        float32 [n_mels, 2 * T], 10 ms a frame, T being the clip's frames in the encoder: the first frames of the
        spectrogram of the clip padded to 30 s, without computing the silence behind them.

    Raises:
        AudioError: the clip is empty or longer than 30 s.
    """
    num_frames = 2 * _num_encoder_frames(len(waveform))
    # The frames just after the end still overlap the clip and count in the maximum below; all later ones are silence.
    num_padded = min((max(len(waveform), MIN_CLIP_SAMPLES) // HOP_LENGTH + 4) * HOP_LENGTH, MAX_CLIP_SAMPLES)
    padded = torch.zeros(num_padded)
    padded[: len(waveform)] = torch.as_tensor(waveform)
    spectrum = torch.stft(padded, WINDOW_LENGTH, HOP_LENGTH, window=_hann_window(), return_complex=True)[:, :-1]
    log_power = (_mel_filters(n_mels) @ spectrum.abs().square_()).clamp_(min=1e-10).log10_()
    log_power = torch.maximum(log_power, log_power.max() - 8.0)[:, :num_frames]
    return (log_power + 4.0) / 4.0


@lru_cache
def _hann_window() -> torch.Tensor:
    return torch.hann_window(WINDOW_LENGTH)


@lru_cache
def _mel_filters(n_mels: int) -> torch.Tensor:
    """Mel filters, float32 [n_mels, 201]; librosa made Whisper's, too."""
    return torch.from_numpy(librosa.filters.mel(sr=SAMPLE_RATE, n_fft=WINDOW_LENGTH, n_mels=n_mels))
