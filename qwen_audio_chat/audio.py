"""Audio on its way into the model: any input to a waveform, a long waveform to clips, a clip to log-mel features."""

from collections.abc import Iterator
from functools import lru_cache

import librosa
import numpy as np
import torch

from .audio_decoding import SAMPLE_RATE, AudioError, AudioSource, load_audio, read_bytes, to_wav_bytes

__all__ = [
    "MAX_CLIP_SECONDS",
    "SAMPLE_RATE",
    "TOKENS_PER_SECOND",
    "AudioError",
    "load_audio",
    "log_mel",
    "num_audio_tokens",
    "num_mel_tokens",
    "pieces",
    "read_bytes",
    "split_audio",
    "to_wav_bytes",
]

MAX_CLIP_SECONDS = 30.0
MAX_CLIP_SAMPLES = int(MAX_CLIP_SECONDS * SAMPLE_RATE)
MIN_CLIP_SAMPLES = 480  # 30 ms, the shortest clip for which the encoder gives a token
WINDOW_LENGTH = 400  # 25 ms
HOP_LENGTH = 160  # 10 ms
TOKENS_PER_SECOND = 25


def split_audio(waveform: np.ndarray, max_seconds: float = MAX_CLIP_SECONDS) -> list[np.ndarray]:
    """Cut a 16 kHz waveform into pieces of at most `max_seconds`, where it is quietest.

    Each cut is in the middle of the quietest 100 ms among the last 5 s of its piece (at most the later half). The
    pieces are views; joined they are the waveform again. No piece is shorter than 1 s (or half of `max_seconds`, if
    that is less), unless the whole waveform is.

    Raises:
        ValueError: `max_seconds` is under 0.01.
    """
    limit = int(max_seconds * SAMPLE_RATE)
    if limit < HOP_LENGTH:
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


def pieces(source: AudioSource, seconds: float = MAX_CLIP_SECONDS) -> Iterator[tuple[float, np.ndarray]]:
    """(start in seconds, 16 kHz float32 [samples]) of each piece of an audio.

    Args:
        source: anything that `load_audio` takes.
        seconds: of the longest piece.

    Raises:
        AudioError: the audio can't be used.
    """
    samples = 0
    for piece in split_audio(load_audio(source), seconds):
        yield samples / SAMPLE_RATE, piece
        samples += len(piece)


def _quietest(waveform: np.ndarray, start: int, end: int) -> int:
    """Index of the middle of the quietest 100 ms within [start, end], the last one among equals."""
    window = min(SAMPLE_RATE // 10, end - start)
    energy = np.concatenate(([0.0], np.cumsum(np.square(waveform[start:end], dtype=np.float64))))
    energies = energy[window:] - energy[:-window]
    return start + len(energies) - 1 - int(np.argmin(energies[::-1])) + window // 2


def num_audio_tokens(num_samples: int) -> int:
    """Audio tokens of one clip, 40 ms each: 1 to 750.

    A clip under 480 samples, for which the official code would give none, counts as padded to 480 samples.

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
        raise AudioError(f"An audio clip may last {MAX_CLIP_SECONDS:g} s at most; split longer audio first.")
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
