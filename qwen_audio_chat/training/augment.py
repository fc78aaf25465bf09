"""Make clean clips sound as if recorded elsewhere: rooms, microphones, noise, telephones, bad levels.

Everything is synthetic and drawn from one generator, so a clip and a seed always give the same samples. The length
never changes, so that time stamps stay valid. A clip of 5 s takes a few milliseconds on one core.
"""

from typing import Any

import librosa
import numpy as np
import scipy.fft

from ..audio.decoding import SAMPLE_RATE

_fft: Any = scipy.fft  # its annotations describe its dispatcher, not its results

# Probabilities, each drawn on its own.
ROOM_PROBABILITY = 0.35
MICROPHONE_PROBABILITY = 0.5
NOISE_PROBABILITY = 0.65
TELEPHONE_PROBABILITY = 0.12
CLIPPING_PROBABILITY = 0.08


def augment(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Apply a random chain of room, microphone, noise, channel and level.

    Args:
        waveform: float32 [samples] at 16 kHz.
        rng: draws everything; the same state gives the same result.

    Returns:
        float32 [samples], same length, finite, peak at most 1.
    """
    if not len(waveform) or not np.any(waveform):
        return waveform.astype(np.float32)
    length = len(waveform)
    tail = SAMPLE_RATE // 2
    size = _fft.next_fast_len(length + tail, real=True)
    frequencies = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    is_telephone = rng.random() < TELEPHONE_PROBABILITY
    spectrum = None
    if rng.random() < ROOM_PROBABILITY:
        spectrum = _fft.rfft(waveform, size) * _fft.rfft(room_response(rng), size)
    if rng.random() < MICROPHONE_PROBABILITY:
        spectrum = (_fft.rfft(waveform, size) if spectrum is None else spectrum) * microphone_response(frequencies, rng)
    signal = np.asarray(waveform, np.float32) if spectrum is None else _fft.irfft(spectrum, size)[:length]
    if rng.random() < NOISE_PROBABILITY:
        signal = add_noise(signal, rng.uniform(3.0, 35.0), rng)
    if is_telephone:
        low, high = rng.uniform(150, 350), rng.uniform(2800, 3900)
        spectrum = _fft.rfft(signal, size) / (
            (1 + (low / np.maximum(frequencies, 1)) ** 8) * (1 + (frequencies / high) ** 16)
        )
        signal = mu_law(_fft.irfft(spectrum, size)[:length])
    peak = np.abs(signal).max()
    if rng.random() < CLIPPING_PROBABILITY:
        limit = peak * rng.uniform(0.2, 0.7)
        signal, peak = np.clip(signal, -limit, limit), limit
    level = 10 ** (rng.uniform(-30, 0) / 20)
    return (signal * (level / max(peak, 1e-9))).astype(np.float32)


def room_response(rng: np.random.Generator) -> np.ndarray:
    """A synthetic impulse response: direct sound, a few early reflections, exponentially decaying noise.

    Returns:
        float32 [at most 8000 samples]; reverberation time 0.1 to 0.7 s, direct-to-reverberant ratio 0 to 18 dB.
    """
    decay_s = rng.uniform(0.1, 0.7)
    length = min(SAMPLE_RATE // 2, int(decay_s * SAMPLE_RATE))
    time = np.arange(length) / SAMPLE_RATE
    late = rng.standard_normal(length) * 10 ** (-3 * time / decay_s)
    late[: int(rng.uniform(0.002, 0.02) * SAMPLE_RATE)] = 0
    early = np.zeros(length)
    places = rng.integers(16, min(length, 800), size=rng.integers(2, 8))
    early[places] = rng.uniform(-0.6, 0.6, size=len(places)) * np.exp(-places / 400)
    ratio = 10 ** (-rng.uniform(0, 18) / 20)
    response = early + late * (ratio / max(np.sqrt(np.square(late).sum()), 1e-9))
    response[0] = 1.0
    return response.astype(np.float32)


def microphone_response(frequencies: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A smooth random gain over frequency (within 12 dB), sometimes with a low cut or a dull top.

    Args:
        frequencies: Hz, [bins].
        rng: draws the curve.

    Returns:
        Gains, [bins].
    """
    points = np.linspace(0, SAMPLE_RATE / 2, 8)
    gains = 10 ** (np.interp(frequencies, points, rng.uniform(-6, 6, size=8)) / 20)
    if rng.random() < 0.3:
        gains = gains / (1 + (rng.uniform(60, 250) / np.maximum(frequencies, 1)) ** 4)
    if rng.random() < 0.25:
        gains = gains / (1 + (frequencies / rng.uniform(3500, 7000)) ** 12)
    return gains


def add_noise(signal: np.ndarray, snr_db: float, rng: np.random.Generator) -> np.ndarray:
    """Add coloured noise, mains hum or crackle at a signal-to-noise ratio.

    Args:
        signal: float [samples].
        snr_db: ratio of the powers over the whole clip.
        rng: draws kind and samples.

    Returns:
        float [samples].
    """
    length = len(signal)
    kind = rng.choice(["coloured", "hum", "crackle"], p=[0.8, 0.1, 0.1])
    if kind == "coloured":
        noise = coloured_noise(length, rng.uniform(-0.3, 2.0), rng)
        if rng.random() < 0.4:  # swells as those of traffic or wind
            points = np.linspace(0, length - 1, 2 + length // 4000)
            noise = noise * np.interp(np.arange(length), points, rng.uniform(0.2, 1.0, size=len(points)))
    elif kind == "hum":
        phase = 2 * np.pi * rng.choice([50, 60]) * np.arange(length) / SAMPLE_RATE
        noise = sum(rng.uniform(0, 1) / order * np.sin(order * phase) for order in (1, 2, 3, 5))
        noise = noise + 0.1 * rng.standard_normal(length)
    else:
        noise = 0.02 * rng.standard_normal(length)
        places = rng.integers(0, length, size=max(1, length // int(rng.integers(800, 8000))))
        noise[places] += rng.standard_normal(len(places))
    power = np.square(signal).mean() / max(np.square(noise).mean(), 1e-12)
    return signal + noise * np.sqrt(power * 10 ** (-snr_db / 10))


def coloured_noise(length: int, slope: float, rng: np.random.Generator) -> np.ndarray:
    """Noise whose power falls as 1 / frequency ** slope: 0 is white, 1 pink, 2 brown; [length], any level."""
    size = _fft.next_fast_len(length, real=True)
    spectrum = _fft.rfft(rng.standard_normal(size, dtype=np.float32))
    frequencies = np.maximum(np.fft.rfftfreq(size, 1 / SAMPLE_RATE), 20).astype(np.float32)
    return _fft.irfft(spectrum * frequencies ** np.float32(-slope / 2), size)[:length]


def mu_law(signal: np.ndarray) -> np.ndarray:
    """Round to the steps of a telephone codec (ITU-T G.711), relative to the peak of the clip."""
    peak = max(np.abs(signal).max(), 1e-9)
    rounded = np.round(librosa.mu_compress(signal / peak, quantize=False) * 128) / 128
    return librosa.mu_expand(rounded, quantize=False) * peak
