"""Waveforms in, waveforms out: reading the packages' files, trimming, and turning one synthetic voice into many.

Resampling shifts pitch and formants together; WORLD shifts them independently.
"""

import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import soxr

from ..audio.decoding import SAMPLE_RATE


def read_waveform(source: Path | BinaryIO) -> np.ndarray:
    """A WAV, FLAC, Ogg or MP3 file of a package as float32 mono at 16 kHz.

    Packages are checked against their hashes, so their files are decoded in this process, which is much faster than
    the child process of `audio.decoding.load_audio`.
    """
    samples, rate = soundfile.read(source, dtype="float32", always_2d=True)
    return soxr.resample(samples.mean(axis=1), rate, SAMPLE_RATE).astype(np.float32)


def resample_by(waveform: np.ndarray, rate: int, shift: float) -> np.ndarray:
    """Resample to 16 kHz as if the recording had been made at `shift` times its rate.

    Pitch and formants rise by this factor and the clip gets shorter by it, so the synthesizer has to speak more slowly.

    Args:
        waveform: float32 [samples].
        rate: its sampling rate in Hz.
        shift: above 1 for a smaller speaker, below 1 for a larger one.

    Returns:
        float32 [samples / shift * 16000 / rate].
    """
    return soxr.resample(waveform, rate * shift, SAMPLE_RATE).astype(np.float32)


def change_voice(waveform: np.ndarray, pitch: float, formants: float, flatness: float = 1.0) -> np.ndarray:
    """Resynthesize with another pitch and another length of the vocal tract (WORLD; Morise et al., 2016).

    Args:
        waveform: float32 [samples] at 16 kHz.
        pitch: factor on the fundamental frequency.
        formants: factor on the frequencies of the spectral envelope.
        flatness: exponent on the intonation around its mean: below 1 more monotonous, above 1 livelier.

    Returns:
        float32, of about the same length.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it looks up its version through the deprecated pkg_resources
        # Here, because it is built from source and only synthesis needs it.
        import pyworld  # pyright: ignore[reportMissingImports]

    signal = waveform.astype(np.float64)
    coarse, times = pyworld.dio(signal, SAMPLE_RATE, f0_floor=60.0, f0_ceil=500.0)
    f0 = pyworld.stonemask(signal, coarse, times, SAMPLE_RATE)
    envelope = pyworld.cheaptrick(signal, f0, times, SAMPLE_RATE)
    aperiodicity = pyworld.d4c(signal, f0, times, SAMPLE_RATE)
    voiced = f0 > 0
    if voiced.any():
        mean = np.exp(np.log(f0[voiced]).mean())
        f0[voiced] = mean * pitch * (f0[voiced] / mean) ** flatness
    bins = np.arange(envelope.shape[1])
    source = np.clip(bins / formants, 0, bins[-1])
    low = np.minimum(source.astype(int), bins[-1] - 1)
    weight = source - low
    warped = np.exp((1 - weight) * np.log(envelope[:, low]) + weight * np.log(envelope[:, low + 1]))
    aperiodicity = (1 - weight) * aperiodicity[:, low] + weight * aperiodicity[:, low + 1]
    return pyworld.synthesize(f0, np.ascontiguousarray(warped), np.ascontiguousarray(aperiodicity), SAMPLE_RATE).astype(
        np.float32
    )


def trim(waveform: np.ndarray, before_s: float, after_s: float) -> np.ndarray:
    """Cut silence (40 dB under the loudest 20 ms) at both ends down to the given seconds."""
    frame = SAMPLE_RATE // 50
    count = len(waveform) // frame
    if count == 0:
        return waveform
    energy = np.square(waveform[: count * frame]).reshape(count, frame).mean(axis=1)
    loud = np.flatnonzero(energy > 1e-4 * energy.max())
    if energy.max() == 0 or len(loud) == 0:
        return waveform[:0]
    start = max(0, int(loud[0] * frame - before_s * SAMPLE_RATE))
    stop = min(len(waveform), int((loud[-1] + 1) * frame + after_s * SAMPLE_RATE))
    return waveform[start:stop]
