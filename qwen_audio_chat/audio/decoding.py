"""Any audio source to a 16 kHz mono waveform.

libsndfile decodes what it can. FFmpeg (PyAV) decodes the rest in a child process, because a forged table in a media
file of 8 kB makes FFmpeg's demuxers allocate gigabytes: in the child, the operating system bounds memory, time and open
files. Either way the sound is mixed down and resampled block by block, so limits apply to what has been decoded and
never to what a header promises.
"""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import av
import av.error
import av.subtitles.stream  # noqa: F401  PyAV imports it late, when the child may no longer open files
import numpy as np
import soundfile
import soxr

from ..errors import UserError

try:
    import resource
except ImportError:  # Windows: the child process has a time limit but no memory limit
    resource = None

SAMPLE_RATE = 16_000
MAX_FILE_BYTES = 256 * 2**20

_MIN_RATE, _MAX_RATE = 1_000, 768_000
_BLOCK_VALUES = 1 << 18  # values decoded at a time, over all channels
_MAX_VALUES = 4_000_000_000  # decoded values of one file: 2 h of 8-channel sound at 48 kHz are 2.8e9
_MAX_AMPLITUDE = 1_000.0  # a value beyond it isn't sound: wrong scale, infinity or NaN
_MAX_UNREAD_BYTES = 4_096  # tags may follow the last frame of a stream; more is a second stream
_MAX_DAMAGED_PACKETS = 1_000
_CHILD_SECONDS = 60.0  # to start the child process and decode a short sound
_DEMUXERS = "aac,aiff,amr,asf,caf,flac,matroska,mov,mp3,ogg,w64,wav"  # no playlists: those open other files
_EXIT_AUDIO_ERROR = 3

Block = tuple[np.ndarray, int]  # [samples, channels] of float or integer, sampling rate
AudioSource = str | os.PathLike | bytes | BinaryIO | np.ndarray | tuple[np.ndarray, int]


class AudioError(UserError):
    """What is wrong with an audio source."""


class _NeedsFFmpeg(Exception):
    """libsndfile can't read the file, or not all of it."""


def load_audio(source: AudioSource, *, max_seconds: float = 7200.0, max_bytes: int = MAX_FILE_BYTES) -> np.ndarray:
    """Decode, mix down and resample any audio to a 16 kHz mono waveform.

    Args:
        source: path, encoded bytes, binary file object (read from its current position), array at 16 kHz, or
            (array, sampling rate). The format is recognised by content, never by name. Arrays are [samples],
            [samples, channels] or [channels, samples] (the shorter axis holds the channels), float within -1 to 1 or
            int8, uint8, int16, int32.
        max_seconds: of the longest sound accepted.
        max_bytes: of the largest file accepted.

    Returns:
        float32 [samples] in [-1, 1): the mean of the channels, rounded to 16-bit integers over 32768 as in the official
        front end. A 16-bit mono file at 16 kHz comes back bit for bit.

    Raises:
        AudioError: the sound can't be decoded, is empty, too long or too large, or holds NaN or infinity.
    """
    if isinstance(source, tuple):
        pcm = _to_pcm(_array_blocks(*source), max_seconds)
    elif isinstance(source, np.ndarray) or hasattr(source, "__array__"):
        pcm = _to_pcm(_array_blocks(np.asarray(source), SAMPLE_RATE), max_seconds)
    else:
        data = read_bytes(source, max_bytes)
        try:
            pcm = _to_pcm(_soundfile_blocks(data), max_seconds)
        except _NeedsFFmpeg:
            pcm = _decode_in_child(data, max_seconds)
    waveform = np.frombuffer(pcm, np.int16).astype(np.float32)
    waveform /= 32768
    return waveform


def to_wav_bytes(waveform: np.ndarray) -> bytes:
    """A 16 kHz mono waveform, float [samples], as a 16-bit WAV file; exact for what `load_audio` returns."""
    file = io.BytesIO()
    soundfile.write(file, _to_int16(waveform), SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return file.getvalue()


def read_bytes(source: str | os.PathLike | bytes | BinaryIO, max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """The encoded bytes of a path, bytes or file object.

    Raises:
        AudioError: it can't be read, is empty, or holds more than `max_bytes`.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        data = bytes(source)
    elif isinstance(source, str | os.PathLike):
        data = _read_file(Path(source), max_bytes + 1)
    elif hasattr(source, "read"):
        data = source.read(max_bytes + 1)
    else:
        raise AudioError(
            "Audio must be a path, bytes, a binary file or an array, not {kind}.", kind=type(source).__name__
        )
    if not isinstance(data, bytes):
        raise AudioError("The audio file object gives text; open it in binary mode.")
    if len(data) > max_bytes:
        raise AudioError(
            "The audio file is larger than {limit:g} MiB; cut or compress it first.", limit=max_bytes / 2**20
        )
    if not data:
        raise AudioError("The audio file is empty (0 bytes); choose another one.")
    return data


def _read_file(path: Path, num_bytes: int) -> bytes:
    name = path.name[:100]
    try:
        if not path.is_file():  # a device or a pipe could give bytes for ever
            raise AudioError("There is no audio file {name!r}; give the path of a file on this computer.", name=name)
        with path.open("rb") as file:
            return file.read(num_bytes)
    except OSError as error:
        raise AudioError(
            "The audio file {name!r} can't be read ({reason}).", name=name, reason=error.strerror
        ) from error


def _array_blocks(array: np.ndarray, rate: int) -> Iterator[Block]:
    array = np.asarray(array)
    if array.ndim not in (1, 2):
        raise AudioError("An audio array must have one or two dimensions, not {dimensions}.", dimensions=array.ndim)
    if array.ndim == 1:
        array = array[:, None]
    elif array.shape[0] < array.shape[1]:
        array = array.T
    for start in range(0, len(array) if array.size else 0, _BLOCK_VALUES):
        yield array[start : start + _BLOCK_VALUES], rate


def _soundfile_blocks(data: bytes) -> Iterator[Block]:
    """Blocks as libsndfile decodes them; raises `_NeedsFFmpeg` where it fails or stops before the end of the file."""
    if data.count(b"OggS\0\2") > 1:  # several streams in one Ogg file: libsndfile reads only the first
        raise _NeedsFFmpeg
    stream = io.BytesIO(data)
    try:
        with soundfile.SoundFile(stream) as file:
            block_length = max(1, _BLOCK_VALUES // file.channels)
            while len(block := file.read(block_length, dtype="float32", always_2d=True)):
                yield block, file.samplerate
            unread = len(data) - stream.tell()
            joined = file.format in ("MP3", "FLAC", "OGG") and unread > _MAX_UNREAD_BYTES
            if file.tell() == 0 or joined:
                raise _NeedsFFmpeg
    except soundfile.SoundFileError as error:
        raise _NeedsFFmpeg from error


def _ffmpeg_blocks(data: bytes) -> Iterator[Block]:
    """Blocks of the first audio track as FFmpeg decodes them; damaged packets are left out."""
    options = {"format_whitelist": _DEMUXERS, "protocol_whitelist": ""}
    num_damaged = 0
    try:
        with av.open(io.BytesIO(data), "r", container_options=options, metadata_errors="replace") as container:
            if not container.streams.audio:
                raise AudioError("The file has no audio track; give a file with sound.")
            for packet in container.demux(container.streams.audio[0]):
                try:
                    frames = packet.decode()
                except av.error.FFmpegError:
                    num_damaged += 1
                    if num_damaged > _MAX_DAMAGED_PACKETS:
                        raise
                    continue
                for frame in frames:
                    samples, channels = frame.to_ndarray(), frame.layout.nb_channels
                    yield samples.T if frame.format.is_planar else samples.reshape(-1, channels), frame.sample_rate
    except av.error.FFmpegError as error:
        raise AudioError(
            "The file is damaged or not audio in a known format; give WAV, FLAC, MP3, Ogg, M4A or WebM."
        ) from error


def _to_pcm(blocks: Iterable[Block], max_seconds: float) -> bytearray:
    """Decoded blocks as 16 kHz mono 16-bit samples."""
    pcm = bytearray()
    for samples in _resample(blocks):
        pcm += _to_int16(samples).data
        if len(pcm) > 2 * SAMPLE_RATE * max_seconds:
            raise AudioError(
                "The audio is longer than the limit of {limit:g} seconds; cut it first.", limit=max_seconds
            )
    if not pcm:
        raise AudioError("The audio is empty: it holds no samples that can be decoded.")
    return pcm


def _resample(blocks: Iterable[Block]) -> Iterator[np.ndarray]:
    """Decoded blocks as float32 [samples] at 16 kHz; the sampling rate may change from block to block."""
    num_values, resampler, resampler_rate = 0, None, SAMPLE_RATE
    end = np.zeros(0, np.float32)
    for block, rate in blocks:
        num_values += block.size
        if num_values > _MAX_VALUES:
            raise AudioError("The audio has too many samples; convert it to mono at 16 kHz first.")
        if not _MIN_RATE <= rate <= _MAX_RATE:
            raise AudioError(
                "The sampling rate of {rate} Hz is outside {lowest} to {highest}; convert it first.",
                rate=rate,
                lowest=_MIN_RATE,
                highest=_MAX_RATE,
            )
        if rate != resampler_rate:
            if resampler:
                yield resampler.resample_chunk(end, last=True)
            resampler = None if rate == SAMPLE_RATE else soxr.ResampleStream(rate, SAMPLE_RATE, 1, quality="HQ")
            resampler_rate = rate
        samples = _mix_down(block)
        yield resampler.resample_chunk(samples) if resampler else samples
    if resampler:
        yield resampler.resample_chunk(end, last=True)


def _mix_down(block: np.ndarray) -> np.ndarray:
    """Mean of the channels: [samples, channels] of float or integer to float32 [samples] of full scale 1."""
    samples = block[:, 0] if block.shape[1] == 1 else block.mean(axis=1)
    if block.dtype == np.uint8:
        samples = (samples - 128.0) / 128.0
    elif block.dtype.kind == "i" and block.dtype.itemsize <= 4:
        samples = samples / 2.0 ** (8 * block.dtype.itemsize - 1)
    elif block.dtype.kind != "f":
        raise AudioError("Audio samples must be float, int8, uint8, int16 or int32, not {kind}.", kind=block.dtype)
    if not np.abs(samples).max(initial=0.0) <= _MAX_AMPLITUDE:
        raise AudioError("The audio holds NaN, infinity or values far outside -1 to 1; repair or scale it first.")
    return samples.astype(np.float32)


def _to_int16(samples: np.ndarray) -> np.ndarray:
    return np.rint(samples * np.float32(32768)).clip(-32768, 32767).astype(np.int16)


def _decode_in_child(data: bytes, max_seconds: float) -> bytes:
    """`_to_pcm(_ffmpeg_blocks(data))` in a child process that runs this module, at an extra cost of about 0.2 s."""
    command = [sys.executable, "-P", "-m", __name__, str(len(data)), str(max_seconds)]
    path = [str(Path(__file__).parents[2]), *filter(None, sys.path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path), "OPENBLAS_NUM_THREADS": "1"}
    timeout = _CHILD_SECONDS + max_seconds / 20
    try:
        child = subprocess.run(command, input=data, capture_output=True, env=environment, timeout=timeout)
    except subprocess.TimeoutExpired as error:
        raise AudioError("Decoding the audio takes too long; convert it to WAV or cut it first.") from error
    if child.returncode == _EXIT_AUDIO_ERROR:
        sentence = json.loads(child.stderr)
        raise AudioError(sentence["template"], **sentence["values"])
    if child.returncode:
        report = RuntimeError(f"the decoder ended with {child.returncode}: {child.stderr.decode(errors='replace')}")
        raise AudioError("The audio file is damaged and can't be decoded; convert it to WAV first.") from report
    return child.stdout


def _main() -> None:
    """The child process: encoded bytes on standard input; samples on standard output, or an error on standard error."""
    num_bytes, max_seconds = int(sys.argv[1]), float(sys.argv[2])
    data = sys.stdin.buffer.read(num_bytes)
    if resource:
        _limit("RLIMIT_NOFILE", 0)  # from here on, no file or connection can be opened
        _limit("RLIMIT_AS", 2**29 + 2 * num_bytes + 4 * SAMPLE_RATE * int(max_seconds))
    try:
        pcm = _to_pcm(_ffmpeg_blocks(data), max_seconds)
    except AudioError as error:
        sys.stderr.write(json.dumps({"template": error.template, "values": error.values}, default=str))
        sys.exit(_EXIT_AUDIO_ERROR)
    sys.stdout.buffer.write(pcm)


def _limit(name: str, value: int) -> None:
    assert resource is not None
    kind = getattr(resource, name)
    _, hard = resource.getrlimit(kind)
    try:
        resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))
    except (ValueError, OSError):  # a system without this limit
        pass


if __name__ == "__main__":
    _main()
