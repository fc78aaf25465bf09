"""Sound files that the tests write themselves: a speech-like signal in any format, and forged files."""

import io
import struct
import zlib
from fractions import Fraction

import av
import numpy as np
import soundfile


def speech_like(seconds: float, rate: int, channels: int = 1) -> np.ndarray:
    """Syllables of a gliding voice, float32 [samples, channels], the channels of different loudness.

    The same formula of time at every rate, with nothing above 3 kHz: what a decoder should give at 16 kHz is known.
    """
    t = np.arange(round(seconds * rate)) / rate
    phase = 2 * np.pi * (120 * t + 8 * np.sin(2 * np.pi * 0.7 * t))
    voice = sum(np.sin(k * phase + k * k) / (k + 2) for k in range(1, 18))
    syllables = np.sin(np.pi * 3 * t) ** 2 * np.minimum(1, np.minimum(t, seconds - t) / 0.05)
    return (0.15 * (voice * syllables)[:, None] * np.linspace(1, 0.5, channels)).astype(np.float32)


def with_soundfile(samples: np.ndarray, rate: int, format: str, subtype: str | None = None) -> bytes:
    """Encode [samples, channels] with libsndfile, a second at a time (large writes of Vorbis crash it)."""
    stream = io.BytesIO()
    with soundfile.SoundFile(stream, "w", rate, samples.shape[1], subtype, format=format) as file:
        for start in range(0, len(samples), rate):
            file.write(samples[start : start + rate])
    return stream.getvalue()


def with_ffmpeg(samples: np.ndarray, rate: int, container: str, codec: str, video: str | None = None) -> bytes:
    """Encode [samples, channels] with FFmpeg, if wished beside a video track."""
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[samples.shape[1]]
    stream = io.BytesIO()
    with av.open(stream, "w", format=container) as file:
        audio = file.add_stream(codec, rate=rate, layout=layout)
        if video:
            picture = file.add_stream(video, rate=5)
            picture.width, picture.height, picture.pix_fmt = 320, 240, "yuv420p"
            for index in range(10):
                frame = av.VideoFrame.from_ndarray(np.full((360, 320), 20 * index, np.uint8), format="yuv420p")
                frame.pts = index
                file.mux(picture.encode(frame))
            file.mux(picture.encode(None))
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        resampler = av.AudioResampler(audio.codec_context.format, layout, rate)
        for converted in resampler.resample(frame):
            file.mux(audio.encode(converted))
        file.mux(audio.encode(None))
    return stream.getvalue()


def can_encode(codec: str) -> bool:
    try:
        return bool(av.Codec(codec, "w"))
    except av.codec.codec.UnknownCodecError:
        return False


def silent_opus(hours: float) -> bytes:
    """Ogg Opus whose packets of two bytes each stand for 120 ms of silence: 10 h in less than a megabyte."""
    packet, samples = b"\xfb\x06", 5760
    pages = [_ogg_page(0, 2, 0, [b"OpusHead" + struct.pack("<BBHIHB", 1, 1, 0, 48000, 0, 0)])]
    pages.append(_ogg_page(1, 0, 0, [b"OpusTags" + struct.pack("<II", 0, 0)]))
    for index in range(round(hours * 3600 / (255 * 0.12))):
        pages.append(_ogg_page(index + 2, 0, (index + 1) * 255 * samples, [packet] * 255))
    return b"".join(pages)


def _ogg_page(number: int, flags: int, position: int, packets: list[bytes]) -> bytes:
    header = b"OggS" + struct.pack("<BBqIIIB", 0, flags, position, 1, number, 0, len(packets))
    page = header + bytes(map(len, packets)) + b"".join(packets)
    reversed_bits = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
    checksum = zlib.crc32(page.translate(reversed_bits), 0xFFFFFFFF) ^ 0xFFFFFFFF  # zlib counts bits from the other end
    return page[:22] + struct.pack(">I", checksum).translate(reversed_bits) + page[26:]


def forged_flac_rate(data: bytes, rate: int) -> bytes:
    """A FLAC file with another sampling rate in its header (20 bits, 10 bytes into STREAMINFO)."""
    fields = int.from_bytes(data[18:26], "big") & ~(0xFFFFF << 44) | rate << 44
    return data[:18] + fields.to_bytes(8, "big") + data[26:]


def forged_wav(data: bytes, field: str, value: int) -> bytes:
    """A WAV file with another number of channels, sampling rate or length of data in its header."""
    offset, form = {"channels": (22, "<H"), "rate": (24, "<I"), "length": (data.find(b"data") + 4, "<I")}[field]
    return data[:offset] + struct.pack(form, value) + data[offset + struct.calcsize(form) :]


def forged_mp4_table(data: bytes, count: int) -> bytes:
    """An MP4 file that claims `count` packets of one byte, all in its first chunk: FFmpeg allocates 24 bytes each."""
    data = bytearray(data)
    sizes, chunks, times = (data.find(name) for name in (b"stsz", b"stsc", b"stts"))
    data[sizes + 8 : sizes + 16] = struct.pack(">II", 1, count)
    data[chunks + 12 : chunks + 20] = struct.pack(">II", 1, count)
    data[times + 12 : times + 16] = struct.pack(">I", count)
    return bytes(data)
