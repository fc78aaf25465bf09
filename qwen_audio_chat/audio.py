"""Audio in: any common file to a 16 kHz mono waveform, long waveforms to clips, clips to log-mel features.

Decoding is bounded by what has actually been decoded, never by what a header promises, and whatever is wrong with a
file ends in one `AudioError`.
"""

import io
from collections.abc import Iterable, Iterator
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
import soundfile
import soxr
import torch
from transformers.audio_utils import mel_filter_bank

SAMPLE_RATE = 16_000
MAX_CLIP_SECONDS = 30.0
MAX_CLIP_SAMPLES = int(MAX_CLIP_SECONDS * SAMPLE_RATE)
MIN_CLIP_SAMPLES = 480  # the shortest clip that gives one audio token
WINDOW_LENGTH = 400  # 25 ms
HOP_LENGTH = 160  # 10 ms

# FFmpeg may open these containers and no other: no playlists, no formats that refer to other files.
_DEMUXERS = "aac,aiff,amr,asf,caf,flac,matroska,mov,mp3,ogg,w64,wav"
_BLOCK_VALUES = 1 << 20  # decoded samples held at a time, over all channels
_MAX_DECODED_VALUES = 4_000_000_000  # bounds the time a file can take; 2 h of 48 kHz 8-channel sound are 2.8e9
_MAX_AMPLITUDE = 1000.0  # beyond it a "sample" is no sound: wrong scale, NaN or infinity

AudioSource = str | PathLike | bytes | BinaryIO | np.ndarray | tuple[np.ndarray, int]


class AudioError(ValueError):
    """What is wrong with an audio input, as one sentence for the user."""


def load_audio(source: AudioSource, *, max_seconds: float = 7200.0, max_bytes: int = 256 * 2**20) -> np.ndarray:
    """Decode, down-mix and resample any audio to a 16 kHz mono waveform.

    Args:
        source: path, encoded bytes, binary file object, array at 16 kHz, or (array, sampling rate). The format is told
            by content, never by name. Arrays are [samples], [samples, channels] or [channels, samples] (the shorter axis
            holds the channels), float within -1 to 1 or int8, uint8, int16, int32.
        max_seconds: longest sound accepted, counted in decoded samples.
        max_bytes: largest file accepted.

    Returns:
        float32 [samples] within [-1, 1), on the grid of 16-bit integers divided by 32768, as Qwen-Audio was trained on;
        a 16-bit 16 kHz file is returned bit for bit. Channels are averaged.

    Raises:
        AudioError: nothing could be decoded, the sound is empty, too long or too large, or holds NaN or infinity.
    """
    if isinstance(source, tuple):
        blocks = _array_blocks(*source)
    elif isinstance(source, np.ndarray) or hasattr(source, "__array__"):
        blocks = _array_blocks(source, SAMPLE_RATE)
    else:
        blocks = _decode(_read_bytes(source, max_bytes))
    return _resample(blocks, max_seconds)


def _read_bytes(source: str | PathLike | bytes | BinaryIO, max_bytes: int) -> bytes:
    """The encoded bytes of a path, bytes or file object, at most `max_bytes`."""
    if isinstance(source, bytes | bytearray | memoryview):
        data = bytes(source)
    elif hasattr(source, "read"):
        data = source.read(max_bytes + 1)
    elif isinstance(source, str | PathLike):
        path = Path(source)
        try:
            if not path.is_file():
                raise AudioError(f"There is no audio file {path.name!r}; give the path of an existing local file.")
            with path.open("rb") as file:
                data = file.read(max_bytes + 1)
        except OSError as error:
            raise AudioError(f"The audio file {path.name!r} cannot be read: {error.strerror}.") from error
    else:
        raise AudioError(f"Audio must be a path, bytes, a binary file or an array, not {type(source).__name__}.")
    if not isinstance(data, bytes):
        raise AudioError("The audio file object must be opened in binary mode.")
    if len(data) > max_bytes:
        raise AudioError(f"The audio file is larger than {max_bytes / 2**20:g} MiB; cut or compress it first.")
    if not data:
        raise AudioError("The audio file is empty (0 bytes).")
    return data


def _decode(data: bytes) -> Iterator[tuple[np.ndarray, int]]:
    """Decoded blocks of an encoded file, as (float32 [samples] mono, sampling rate)."""
    try:
        file = soundfile.SoundFile(io.BytesIO(data))
    except soundfile.SoundFileError:
        return _pyav_blocks(data)
    return _soundfile_blocks(file)


def _soundfile_blocks(file: soundfile.SoundFile) -> Iterator[tuple[np.ndarray, int]]:
    with file:
        block_length = max(1, _BLOCK_VALUES // file.channels)
        while len(block := file.read(block_length, dtype="float32", always_2d=True)):
            yield _mono(block), file.samplerate


def _refuse_open(*_args, **_options):
    raise AudioError("The media file refers to another file, which is not allowed.")


def _pyav_blocks(data: bytes) -> Iterator[tuple[np.ndarray, int]]:
    options = {"format_whitelist": _DEMUXERS, "protocol_whitelist": ""}
    try:
        with av.open(io.BytesIO(data), container_options=options, io_open=_refuse_open, metadata_errors="replace") as file:
            if not file.streams.audio:
                raise AudioError("The file holds no audio track.")
            for packet in file.demux(file.streams.audio[0]):
                try:
                    frames = packet.decode()
                except av.error.InvalidDataError:
                    continue  # a damaged packet costs its own few milliseconds only
                for frame in frames:
                    samples = frame.to_ndarray()
                    channels = frame.layout.nb_channels
                    samples = samples.T if frame.format.is_planar else samples.reshape(-1, channels)
                    yield _mono(samples), frame.sample_rate
    except (av.error.FFmpegError, ValueError) as error:
        if isinstance(error, AudioError):
            raise
        raise AudioError("The file is not audio in a known format; try WAV, FLAC, MP3, Ogg, M4A or WebM.") from error


def _array_blocks(array: np.ndarray, rate: int) -> Iterator[tuple[np.ndarray, int]]:
    array = np.asarray(array)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2:
        raise AudioError(f"An audio array must have one or two dimensions, not {array.ndim}.")
    if array.shape[0] < array.shape[1]:
        array = array.T
    for start in range(0, len(array), _BLOCK_VALUES):
        yield _mono(array[start : start + _BLOCK_VALUES]), rate


def _mono(samples: np.ndarray) -> np.ndarray:
    """Mean of the channels: float or integer [samples, channels] to float32 [samples] of full scale 1."""
    kind, bits = samples.dtype.kind, samples.dtype.itemsize * 8
    if kind == "f":
        return samples.mean(axis=1, dtype=np.float32)
    if kind == "i" and bits <= 32:
        return (samples.mean(axis=1) / 2.0 ** (bits - 1)).astype(np.float32)
    if kind == "u" and bits == 8:
        return ((samples.mean(axis=1) - 128) / 128).astype(np.float32)
    raise AudioError(f"Audio samples must be float, int8, uint8, int16 or int32, not {samples.dtype}.")


def _resample(blocks: Iterable[tuple[np.ndarray, int]], max_seconds: float) -> np.ndarray:
    """Join decoded blocks into one 16 kHz waveform, at most `max_seconds` long."""
    pcm, stream, current_rate = bytearray(), None, SAMPLE_RATE
    max_pcm_bytes = 2 * int(max_seconds * SAMPLE_RATE)

    def write(samples: np.ndarray) -> None:
        pcm.extend(_to_int16(samples).tobytes())
        if len(pcm) > max_pcm_bytes:
            raise AudioError(f"The audio is longer than the limit of {max_seconds:g} seconds; cut it first.")

    def flush() -> None:
        if stream is not None:
            write(stream.resample_chunk(np.zeros(0, np.float32), last=True))

    for block, rate in blocks:
        if not np.abs(block).max(initial=0) <= _MAX_AMPLITUDE:
            raise AudioError("The audio holds samples that are not finite or far outside -1 to 1.")
        if rate != current_rate:
            flush()
            stream = None if rate == SAMPLE_RATE else soxr.ResampleStream(rate, SAMPLE_RATE, 1, quality="HQ")
            current_rate = rate
        write(block if stream is None else stream.resample_chunk(block))
    flush()
    if not pcm:
        raise AudioError("The audio is empty: it holds no samples.")
    waveform = np.frombuffer(pcm, np.int16).astype(np.float32)
    waveform /= 32768
    return waveform


def _to_int16(waveform: np.ndarray) -> np.ndarray:
    return np.rint(waveform * np.float32(32768)).clip(-32768, 32767).astype(np.int16)


def to_wav_bytes(waveform: np.ndarray) -> bytes:
    """A 16 kHz mono waveform, float [samples], as a 16-bit WAV file; exact for what `load_audio` returns."""
    file = io.BytesIO()
    soundfile.write(file, _to_int16(waveform), SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return file.getvalue()


def split_audio(waveform: np.ndarray, max_seconds: float = MAX_CLIP_SECONDS) -> list[np.ndarray]:
    """Cut a 16 kHz waveform into pieces of at most `max_seconds`, where it is quietest.

    Each cut is the middle of the quietest 100 ms among the last 5 s (at most half) of the piece. The pieces are views;
    joined they are the waveform again. None is shorter than a second unless the waveform or `max_seconds` demands it.
    """
    limit = int(max_seconds * SAMPLE_RATE)
    step = SAMPLE_RATE // 100
    if limit < 2 * step:
        raise ValueError(f"max_seconds must be at least 0.02, not {max_seconds}")
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
    """Index of the middle of the quietest 100 ms within [start, end), the last one among equals."""
    window = min(SAMPLE_RATE // 10, end - start)
    power = np.cumsum(np.square(waveform[start:end], dtype=np.float64))
    energy = power[window - 1 :] - np.concatenate(([0.0], power[:-window]))
    return start + len(energy) - 1 - int(np.argmin(energy[::-1])) + window // 2


def num_audio_tokens(num_samples: int) -> int:
    """Audio tokens of one clip, 40 ms each: 1 to 750.

    Clips under 30 ms (480 samples), for which the official code would give no token, count as padded to 30 ms.

    Raises:
        AudioError: the clip is empty or longer than 30 s.
    """
    return _num_encoder_frames(num_samples) // 2


def _num_encoder_frames(num_samples: int) -> int:
    """Frames of the encoder after its convolution of stride 2, 20 ms each (half the mel frames, rounded up)."""
    if num_samples < 1:
        raise AudioError("The audio is empty: it holds no samples.")
    if num_samples > MAX_CLIP_SAMPLES:
        raise AudioError(f"An audio clip may last {MAX_CLIP_SECONDS:g} s at most; split longer audio first.")
    return (max(num_samples, MIN_CLIP_SAMPLES) // HOP_LENGTH + 1) // 2


def log_mel(waveform: np.ndarray, n_mels: int = 80) -> torch.Tensor:
    """Log-mel spectrogram of one clip as Whisper computes it (Radford et al., 2022, arXiv:2212.04356), section 2.2.

    Args:
        waveform: float [samples], 16 kHz mono, 1 to 480,000 samples; under 480 it is padded with zeros.
        n_mels: number of mel bands.

    Returns:
        float32 [n_mels, 2 * T], 10 ms a frame, T being the encoder's frames: the leading frames of the official
        spectrogram of the clip padded to 30 s, computed without the silence.
    """
    num_frames = 2 * _num_encoder_frames(len(waveform))
    # The frames just after the end still overlap the clip and count in the maximum below; later ones are silence.
    padded_length = min((len(waveform) // HOP_LENGTH + 4) * HOP_LENGTH, MAX_CLIP_SAMPLES)
    padded = torch.zeros(max(padded_length, MIN_CLIP_SAMPLES + 4 * HOP_LENGTH))
    padded[: len(waveform)] = torch.as_tensor(waveform)
    spectrum = torch.stft(padded, WINDOW_LENGTH, HOP_LENGTH, window=_window(), center=True, return_complex=True)
    log_power = (_mel_filters(n_mels) @ spectrum[:, :-1].abs().square()).clamp_(min=1e-10).log10_()
    log_power = torch.maximum(log_power, log_power.max() - 8.0)
    return ((log_power + 4.0) / 4.0)[:, :num_frames].contiguous()


@lru_cache
def _window() -> torch.Tensor:
    return torch.hann_window(WINDOW_LENGTH)


@lru_cache
def _mel_filters(n_mels: int) -> torch.Tensor:
    """Mel filters, float32 [n_mels, 201]."""
    filters = mel_filter_bank(
        WINDOW_LENGTH // 2 + 1, n_mels, 0.0, SAMPLE_RATE / 2, SAMPLE_RATE, norm="slaney", mel_scale="slaney"
    )
    return torch.from_numpy(filters.T.astype(np.float32)).contiguous()
