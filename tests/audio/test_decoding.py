"""Every format against a reference decode, and what broken, forged and hostile input does."""

import io
import json
import math
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.signal import resample_poly

from qwen_audio_chat.audio import decoding as audio_decoding
from qwen_audio_chat.audio.decoding import SAMPLE_RATE, AudioError, load_audio, to_wav_bytes

from . import audio_formats as formats

EXAMPLES = Path(__file__).parents[2] / "assets" / "examples"
SECONDS = 2.0
SPEECH = formats.speech_like(SECONDS, SAMPLE_RATE)[:, 0]
STEREO_GAIN = 0.75  # mean loudness of the two channels that `speech_like` gives


def snr(samples: np.ndarray, reference: np.ndarray) -> float:
    """Signal-to-noise ratio in dB of their common length."""
    length = min(len(samples), len(reference))
    error = samples[:length] - reference[:length]
    return 10 * np.log10(np.sum(reference[:length] ** 2) / max(np.sum(error**2), 1e-20))


def reference_decode(data: bytes) -> np.ndarray:
    """Decode at once, with FFmpeg's own conversion to float, and resample with SciPy's polyphase filter."""
    with av.open(io.BytesIO(data)) as file:
        to_float = av.AudioResampler(format="fltp")
        frames = [part.to_ndarray() for frame in file.decode(audio=0) for part in to_float.resample(frame)]
        rate = file.streams.audio[0].rate
    mono = np.concatenate(frames, axis=1).mean(axis=0)
    divisor = math.gcd(rate, SAMPLE_RATE)
    return resample_poly(mono, SAMPLE_RATE // divisor, rate // divisor)


@pytest.fixture
def no_child(monkeypatch):
    """Only libsndfile may decode."""

    def refuse(data, max_seconds):
        raise AssertionError("the file went to FFmpeg")

    monkeypatch.setattr(audio_decoding, "_decode_in_child", refuse)


@pytest.fixture
def ffmpeg_in_process(monkeypatch):
    """FFmpeg without its child process, to try many inputs in little time."""

    def decode(data, max_seconds):
        return audio_decoding._to_pcm(audio_decoding._ffmpeg_blocks(data), max_seconds)

    monkeypatch.setattr(audio_decoding, "_decode_in_child", decode)


# Formats. Rounding the signal to 16 bits leaves 72 dB. Two decodes of one file agree to 40 dB or more: they differ in
# that rounding and in how much of a codec's noise near 8 kHz the resamplers let through. The second comparison, with
# the formula, shows the right sound at the right time and loudness, as far as the codec keeps it.


@pytest.mark.parametrize(
    "format, subtype, least_snr",
    [
        ("WAV", "PCM_16", 55),
        ("WAV", "PCM_24", 65),
        ("WAV", "FLOAT", 65),
        ("WAV", "PCM_U8", 10),
        ("WAV", "ULAW", 35),
        ("FLAC", "PCM_16", 60),
        ("AIFF", "PCM_16", 55),
        ("MP3", None, 15),
        ("OGG", "VORBIS", 15),
        ("OGG", "OPUS", 15),
    ],
)
@pytest.mark.parametrize("rate", [16000, 48000])
def test_formats_of_libsndfile(format, subtype, least_snr, rate, no_child):
    data = formats.with_soundfile(formats.speech_like(SECONDS, rate, 2), rate, format, subtype)
    waveform = load_audio(data)
    assert waveform.dtype == np.float32 and waveform.shape == SPEECH.shape
    assert snr(waveform, reference_decode(data)) > 40
    assert snr(waveform, STEREO_GAIN * SPEECH) > least_snr


@pytest.mark.parametrize(
    "container, codec, rate, video",
    [
        ("ipod", "aac", 44100, None),  # M4A
        ("ipod", "alac", 44100, None),
        ("mp4", "aac", 48000, "mpeg4"),
        ("webm", "libopus", 48000, None),
        ("matroska", "flac", 48000, None),
        ("mov", "pcm_s16le", 48000, None),
    ],
)
def test_formats_of_ffmpeg(container, codec, rate, video):
    if not all(formats.can_encode(name) for name in (codec, video) if name):
        pytest.skip(f"this PyAV has no encoder of {codec} or {video}")
    data = formats.with_ffmpeg(formats.speech_like(SECONDS, rate, 2), rate, container, codec, video)
    waveform = load_audio(data)
    assert 0 <= len(waveform) - len(SPEECH) < 1024 * SAMPLE_RATE / rate + 1  # AAC fills its last frame
    assert snr(waveform, reference_decode(data)) > 40
    assert snr(waveform, STEREO_GAIN * SPEECH) > 15


@pytest.mark.parametrize("container, codec, rate", [("adts", "aac", 48000), ("amr", "libopencore_amrnb", 8000)])
def test_formats_that_start_late(container, codec, rate):
    """Formats that do not say how many samples the encoder put first: only the reference decode is comparable."""
    if not formats.can_encode(codec):
        pytest.skip(f"this PyAV has no encoder of {codec}")
    data = formats.with_ffmpeg(formats.speech_like(SECONDS, rate), rate, container, codec)
    assert snr(load_audio(data), reference_decode(data)) > 40


@pytest.mark.parametrize("channels", [1, 2, 3, 6, 8])
@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 96000, 192000])
def test_rates_and_channels(rate, channels, no_child):
    waveform = load_audio(formats.with_soundfile(formats.speech_like(SECONDS, rate, channels), rate, "WAV", "FLOAT"))
    gain = np.linspace(1, 0.5, channels).mean()
    assert waveform.shape == SPEECH.shape
    assert snr(waveform, gain * SPEECH) > 65  # rounding leaves 70 to 73 dB


def test_16_bit_material_at_16_khz_is_exact(no_child):
    integers = np.random.default_rng(0).integers(-32768, 32768, 40_000).astype(np.int16)
    integers[:2] = -32768, 32767
    for format in ("WAV", "FLAC"):
        stream = io.BytesIO()
        soundfile.write(stream, integers, SAMPLE_RATE, format=format, subtype="PCM_16")
        assert np.array_equal(load_audio(stream.getvalue()), integers.astype(np.float32) / 32768)
    assert np.array_equal(load_audio(to_wav_bytes(integers / 32768)), integers.astype(np.float32) / 32768)


def test_loud_samples_clip():
    assert load_audio(np.array([1.5, -1.5, 0.25])).tolist() == [32767 / 32768, -1.0, 0.25]


# Sources.


def test_sources_give_the_same(tmp_path, no_child):
    data = to_wav_bytes(SPEECH)
    path = tmp_path / "speech.wav"
    path.write_bytes(data)
    expected = load_audio(data)
    with path.open("rb") as file:
        for source in (path, str(path), bytearray(data), io.BytesIO(data), file, expected, (expected, SAMPLE_RATE)):
            assert np.array_equal(load_audio(source), expected)


def test_content_decides_not_the_name(tmp_path):
    data = formats.with_soundfile(SPEECH[:, None], SAMPLE_RATE, "MP3")
    for name in ("a.wav", "a.raw", "a.txt", "a"):
        path = tmp_path / name
        path.write_bytes(data)
        assert np.array_equal(load_audio(path), load_audio(data))
        with path.open("rb") as file:
            assert np.array_equal(load_audio(file), load_audio(data))


def test_a_text_named_wav_is_no_sound(tmp_path):
    (tmp_path / "letter.wav").write_text("Dear Sir or Madam,\n" * 500)
    with pytest.raises(AudioError, match="not audio in a known format"):
        load_audio(tmp_path / "letter.wav")


def test_silence_is_a_sound():
    assert np.array_equal(load_audio(to_wav_bytes(np.zeros(SAMPLE_RATE))), np.zeros(SAMPLE_RATE, np.float32))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["menu", "new-password", "not-valid"])
@pytest.mark.parametrize(
    "container, codec", [(None, None), ("mp3", "libmp3lame"), ("ipod", "aac"), ("webm", "libopus")]
)
def test_recordings_of_people(name, container, codec):
    path = EXAMPLES / f"{name}.flac"
    data = path.read_bytes()
    if container:
        if not formats.can_encode(codec):
            pytest.skip(f"this PyAV has no encoder of {codec}")
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        samples = soxr.resample(samples, rate, 48000)
        data = formats.with_ffmpeg(samples, 48000, container, codec)
    assert snr(load_audio(data), reference_decode(data)) > 35


@pytest.mark.parametrize("dtype, scale", [("int8", 2**7), ("int16", 2**15), ("int32", 2**31), ("float64", 2**40)])
def test_arrays_of_any_type(dtype, scale):
    levels = np.round(SPEECH.astype(np.float64) * scale)
    array = levels.astype(dtype) if dtype.startswith("int") else levels / scale
    assert np.allclose(load_audio(array), levels / scale, rtol=0, atol=2**-16)  # half a step of 16 bits


def test_unsigned_bytes_are_centred():
    assert load_audio(np.array([0, 128, 192], np.uint8)).tolist() == [-1.0, 0.0, 0.5]


def test_either_axis_may_hold_the_channels():
    stereo = formats.speech_like(SECONDS, 44100, 2)
    expected = load_audio((stereo.mean(axis=1), 44100))
    assert np.array_equal(load_audio((stereo, 44100)), expected)
    assert np.array_equal(load_audio((np.ascontiguousarray(stereo.T), 44100)), expected)


@pytest.mark.parametrize("num_samples", [1, 2, 159, 160, 479, 480])
def test_tiny_clips(num_samples):
    clip = SPEECH[8000 : 8000 + num_samples]
    assert np.allclose(load_audio(to_wav_bytes(clip)), clip, rtol=0, atol=2**-16)
    assert len(load_audio((clip, 8000))) == 2 * num_samples


# One clear sentence for what can't be read.


def wav_of(samples: np.ndarray, rate: int = SAMPLE_RATE) -> bytes:
    return formats.with_soundfile(samples.astype(np.float32)[:, None], rate, "WAV", "FLOAT")


@pytest.mark.parametrize(
    "source, words",
    [
        (b"", "empty"),
        (np.zeros(0, np.float32), "empty"),
        (np.zeros((0, 2), np.float32), "empty"),
        (wav_of(np.zeros(0)), "empty"),
        (wav_of(np.array([0.1, np.nan])), "NaN"),
        (wav_of(np.array([0.1, -np.inf])), "infinity"),
        (np.array([0.1, np.nan]), "NaN"),
        (np.array([20000.0, -30000.0]), "outside -1 to 1"),
        (b"Dear Sir or Madam,\nthis is a letter.\n" * 200, "not audio in a known format"),
        (np.random.default_rng(0).bytes(10_000), "not audio in a known format"),
        ("no/such/file.wav", "no audio file 'file.wav'"),
        (".", "no audio file"),
        ("http://127.0.0.1:9/a.wav", "no audio file"),
        ("a\0b.wav", "no audio file"),
        ("a" * 5000, "can't be read"),
        (io.StringIO("text"), "binary mode"),
        (3.5, "not float"),
        (np.zeros((2, 2, 2)), "one or two dimensions"),
        (np.zeros(9, np.int64), "int64"),
        (np.zeros(9, complex), "complex128"),
        ((np.zeros(99, np.float32), 0), "sampling rate"),
        ((np.zeros(99, np.float32), 999_999), "sampling rate"),
        ((16000, np.zeros(99, np.float32)), "dimensions"),
    ],
)
def test_errors_are_one_sentence(source, words):
    with pytest.raises(AudioError) as caught:
        load_audio(source)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 200 and "\n" not in str(caught.value)


def test_video_without_sound():
    stream = io.BytesIO()
    with av.open(stream, "w", format="mp4") as file:
        picture = file.add_stream("mpeg4", rate=5)
        picture.width, picture.height, picture.pix_fmt = 320, 240, "yuv420p"
        file.mux(picture.encode(av.VideoFrame.from_ndarray(np.zeros((360, 320), np.uint8), format="yuv420p")))
        file.mux(picture.encode(None))
    with pytest.raises(AudioError, match="no audio track"):
        load_audio(stream.getvalue())


# Nothing is cut without a word.


def test_limits_are_exact(no_child):
    data = formats.with_soundfile(formats.speech_like(SECONDS, 48000), 48000, "FLAC")
    assert len(load_audio(data, max_seconds=SECONDS, max_bytes=len(data))) == SECONDS * SAMPLE_RATE
    with pytest.raises(AudioError, match="limit of 1.9 seconds"):
        load_audio(data, max_seconds=1.9)
    with pytest.raises(AudioError, match="larger than"):
        load_audio(data, max_bytes=len(data) - 1)
    with pytest.raises(AudioError, match="limit of 1.9 seconds"):
        load_audio(SPEECH, max_seconds=1.9)


def test_limit_of_seconds_reaches_the_child():
    data = formats.with_ffmpeg(formats.speech_like(SECONDS, 48000), 48000, "mp4", "aac")
    with pytest.raises(AudioError, match="limit of 1.9 seconds"):
        load_audio(data, max_seconds=1.9)


@pytest.mark.parametrize("format, subtype", [("MP3", None), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("FLAC", "PCM_16")])
def test_joined_files_are_read_to_the_end(format, subtype):
    data = formats.with_soundfile(SPEECH[:, None], SAMPLE_RATE, format, subtype)
    assert len(load_audio(data + data)) == pytest.approx(2 * len(SPEECH), abs=2400)  # an MP3's encoder delay stays


def test_sampling_rate_may_change_within_a_stream():
    parts = [
        formats.with_ffmpeg(formats.speech_like(SECONDS, rate), rate, "adts", "aac") for rate in (22050, 48000, 44100)
    ]
    alone = [load_audio(part) for part in parts]
    together = load_audio(b"".join(parts))
    assert len(together) == pytest.approx(sum(map(len, alone)), abs=4)
    assert snr(together[len(alone[0]) + 500 :], alone[1][500:-500]) > 30  # the codec's state lasts for a frame or two


@pytest.mark.parametrize("length", [0, 2**31 - 1, 2**31, 2**32 - 1])
def test_wav_with_a_wrong_length_is_read_to_the_end(length):
    data = formats.forged_wav(to_wav_bytes(SPEECH), "length", length)  # as recorders leave it that were interrupted
    assert np.array_equal(load_audio(data), load_audio(SPEECH))


@pytest.mark.parametrize("format, subtype", [("WAV", "PCM_16"), ("MP3", None), ("FLAC", "PCM_16"), ("OGG", "OPUS")])
def test_truncated_files_give_their_beginning(format, subtype):
    data = formats.with_soundfile(SPEECH[:, None], SAMPLE_RATE, format, subtype)
    waveform = load_audio(data[: len(data) * 2 // 3])
    assert 0.3 < len(waveform) / len(SPEECH) < 0.9
    assert snr(waveform[:-2000], SPEECH) > 10


# Broken and hostile files.


@pytest.mark.parametrize(
    "field, value", [("channels", 0), ("channels", 8), ("channels", 65535), ("rate", 0), ("rate", 1)]
)
def test_forged_wav_headers(field, value):
    data = formats.forged_wav(to_wav_bytes(SPEECH), field, value)
    try:
        assert 0 < len(load_audio(data)) <= len(SPEECH)
    except AudioError:
        assert value != 8  # the header of 8 channels is wrong, but it can be followed


def test_decoded_values_are_counted(monkeypatch, no_child):
    data = formats.with_soundfile(formats.speech_like(SECONDS, 48000, 8), 48000, "FLAC")
    monkeypatch.setattr(audio_decoding, "_MAX_VALUES", 8 * 48000 * SECONDS)
    assert len(load_audio(data)) == len(SPEECH)
    monkeypatch.setattr(audio_decoding, "_MAX_VALUES", 8 * 48000 * SECONDS - 1)
    with pytest.raises(AudioError, match="too many samples"):
        load_audio(data)


def test_damaged_packets_are_left_out_up_to_a_number(ffmpeg_in_process, monkeypatch):
    data = bytearray(formats.with_ffmpeg(formats.speech_like(SECONDS, 48000), 48000, "mp4", "aac"))
    middle = data.find(b"mdat") + 4 + len(data) // 4
    data[middle : middle + 3000] = np.random.default_rng(0).bytes(3000)
    waveform = load_audio(bytes(data))
    assert 0.7 * len(SPEECH) < len(waveform) < len(SPEECH)
    monkeypatch.setattr(audio_decoding, "_MAX_DAMAGED_PACKETS", 2)
    with pytest.raises(AudioError, match="damaged"):
        load_audio(bytes(data))


@pytest.mark.parametrize("text", ["#EXTM3U\n#EXTINF:1,\n{path}\n", "ffconcat version 1.0\nfile {path}\n"])
def test_playlists_open_nothing(text, tmp_path):
    (tmp_path / "secret.wav").write_bytes(to_wav_bytes(SPEECH))
    with pytest.raises(AudioError, match="not audio in a known format"):
        load_audio(text.format(path=tmp_path / "secret.wav").encode())


def test_the_child_opens_no_file(tmp_path):
    """Even a demuxer that follows playlists, were it allowed, could not open what they name."""
    (tmp_path / "secret.wav").write_bytes(to_wav_bytes(SPEECH))
    playlist = f"ffconcat version 1.0\nfile {tmp_path / 'secret.wav'}\n".encode()
    program = """
import sys
from qwen_audio_chat.audio import decoding
av_open = decoding.av.open
options = {"safe": "0", "protocol_whitelist": "file"}
decoding.av.open = lambda file, *_, **__: av_open(file, format="concat", container_options=options)
if sys.argv.pop() == "unlimited":
    decoding._limit = lambda *_: None
decoding._main()
"""
    outcomes = []
    for limits in ("unlimited", "limited"):
        command = [sys.executable, "-c", program, str(len(playlist)), "60", limits]
        outcomes.append(subprocess.run(command, input=playlist, capture_output=True))
    assert len(outcomes[0].stdout) == 2 * len(SPEECH)  # without the limit the playlist works, so the test is one
    assert outcomes[1].returncode and not outcomes[1].stdout


@pytest.mark.parametrize("script", ["echo nonsense >&2; exit 1", "kill -SEGV $$", "sleep 30"])
def test_a_child_that_fails_is_an_audio_error(script, tmp_path, monkeypatch):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    monkeypatch.setattr(audio_decoding.sys, "executable", str(python))
    monkeypatch.setattr(audio_decoding, "_CHILD_SECONDS", 0.5)
    with pytest.raises(AudioError, match="damaged|too long"):
        audio_decoding._decode_in_child(b"data", 1.0)


def loaded(data: bytes, max_seconds: float, path: Path) -> dict:
    """What `load_audio` does in a process of its own: samples or error, and its peak memory and the child's in MiB."""
    path.write_bytes(data)
    program = """
import json, re, resource, sys
from qwen_audio_chat.audio.decoding import AudioError, load_audio
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
before = peak()
try:
    outcome = {"samples": len(load_audio(sys.argv[1], max_seconds=float(sys.argv[2])))}
except AudioError as error:
    outcome = {"error": str(error)}
child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
print(json.dumps(outcome | {"memory": peak() - before, "child": child}))
"""
    run = subprocess.run([sys.executable, "-c", program, path, str(max_seconds)], capture_output=True, check=True)
    return json.loads(run.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")
class TestMemory:
    """Peak memory beyond that of the imports; decoded as a whole, each of these files takes hundreds of MiB or more."""

    def test_ten_hours_of_silence(self, tmp_path):
        data = formats.silent_opus(10)
        assert len(data) < 2**20 and soundfile.info(io.BytesIO(data)).duration > 35_000
        outcome = loaded(data, 300, tmp_path / "a")
        assert "limit of 300 seconds" in outcome["error"]
        assert outcome["memory"] < 64

    def test_forged_sampling_rate(self, tmp_path):
        seconds = 60
        data = formats.with_soundfile(np.zeros((seconds * 48000, 8), np.float32), 48000, "FLAC")  # 92 MB as float
        outcome = loaded(formats.forged_flac_rate(data, 655_350), 300, tmp_path / "a")
        assert outcome["samples"] == pytest.approx(seconds * 48000 * SAMPLE_RATE / 655_350, abs=1)
        assert outcome["memory"] < 64

    def test_forged_wav_of_one_hertz(self, tmp_path):
        outcome = loaded(formats.forged_wav(to_wav_bytes(SPEECH), "rate", 1), 300, tmp_path / "a")
        assert "sampling rate" in outcome["error"]
        assert outcome["memory"] < 64

    def test_forged_table_of_packets(self, tmp_path):
        data = formats.with_ffmpeg(formats.speech_like(SECONDS, 48000), 48000, "mp4", "aac")
        honest = loaded(data, 300, tmp_path / "a")
        forged = loaded(formats.forged_mp4_table(data, 60_000_000), 300, tmp_path / "b")  # 1.4 GB of index
        assert honest["samples"] and forged["error"]
        assert forged["memory"] < 64 and forged["child"] < 600


def check(data: bytes) -> None:
    try:
        waveform = load_audio(data, max_seconds=10)
    except AudioError as error:
        assert "\n" not in str(error)
        return
    assert waveform.dtype == np.float32 and 0 < len(waveform) <= 10 * SAMPLE_RATE
    assert np.abs(waveform).max() <= 1


FIXTURE_IS_CONSTANT = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
SOUND = {
    name: formats.with_soundfile(formats.speech_like(0.5, 16000, 2), 16000, *name.split())
    for name in (
        "WAV PCM_16",
        "WAV FLOAT",
        "WAV IMA_ADPCM",
        "FLAC PCM_16",
        "MP3 MPEG_LAYER_III",
        "OGG VORBIS",
        "OGG OPUS",
    )
}


@pytest.mark.slow
@settings(max_examples=12, deadline=None, suppress_health_check=FIXTURE_IS_CONSTANT)
@given(
    start=st.sampled_from([b"", b"RIFF", b"fLaC", b"\xff\xfb\x90", b"OggS\0", b"ID3", b"\x1aE\xdf\xa3"]),
    rest=st.binary(),
)
def test_random_bytes(start, rest):
    check(start + rest)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # soundfile seeks where headers send it
@settings(max_examples=150, deadline=None, suppress_health_check=FIXTURE_IS_CONSTANT)
@given(
    name=st.sampled_from(sorted(SOUND)),
    edits=st.lists(st.tuples(st.integers(0, 150), st.integers(0, 255)), min_size=1, max_size=6),
    cut=st.none() | st.integers(1, 20_000),
)
def test_damaged_headers(ffmpeg_in_process, name, edits, cut):
    data = bytearray(SOUND[name])
    for index, value in edits:
        data[index] = value
    check(bytes(data[:cut]))
