"""Features against the original's and Whisper's, token counts, and cuts in quiet places."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import WhisperFeatureExtractor

from qwen_audio_chat.audio.cutting import split_audio
from qwen_audio_chat.audio.decoding import SAMPLE_RATE, AudioError
from qwen_audio_chat.audio.features import log_mel, num_audio_tokens
from tests.golden.golden_inputs import waveform

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "expected.npz")


@pytest.fixture(scope="module")
def whisper():
    extractor = WhisperFeatureExtractor(feature_size=80)
    return lambda clip: extractor(clip, sampling_rate=SAMPLE_RATE, return_tensors="np").input_features[0]


@pytest.mark.parametrize("name", [key.split("__")[1] for key in GOLDEN if key.startswith("mel__")])
def test_features_of_the_original(name):
    expected = GOLDEN[f"mel__{name}__every_7th_frame"]
    features = log_mel(waveform(name))[:, ::7]
    assert features.shape == expected.shape
    assert np.abs(features.numpy() - expected).max() < 1e-4


@pytest.mark.parametrize(
    "num_samples", [480, 639, 640, 799, 800, 16_000, 16_123, 250_001, 479_520, 479_679, 479_680, 479_999, 480_000]
)
@pytest.mark.parametrize("kind", ["rising noise", "last sample", "silence", "constant"])
def test_features_equal_whispers_on_30_seconds(num_samples, kind, whisper):
    """Also where the loudest frame is one behind the clip's end, and where the end is the 30 s mark."""
    clip = {
        "rising noise": np.random.default_rng(0).standard_normal(num_samples) * np.linspace(0, 0.3, num_samples) ** 4,
        "last sample": np.eye(1, num_samples, num_samples - 1)[0],
        "silence": np.zeros(num_samples),
        "constant": np.full(num_samples, 0.5),
    }[kind].astype(np.float32)
    features = log_mel(clip)
    assert features.dtype == torch.float32
    num_encoder_frames = (num_samples // 160 - 1) // 2 + 1
    assert features.shape == (80, 2 * num_encoder_frames)
    assert num_audio_tokens(num_samples) == num_encoder_frames // 2
    assert np.abs(features.numpy() - whisper(clip)[:, : features.shape[1]]).max() < 1e-5


@pytest.mark.parametrize("num_samples", [1, 159, 160, 320, 479])
def test_short_clips_count_as_30_ms(num_samples, whisper):
    clip = np.random.default_rng(0).standard_normal(num_samples).astype(np.float32)
    assert num_audio_tokens(num_samples) == num_audio_tokens(480) == 1
    assert torch.equal(log_mel(clip), log_mel(np.pad(clip, (0, 480 - num_samples))))
    assert np.abs(log_mel(clip).numpy() - whisper(clip)[:, :4]).max() < 1e-5


@pytest.mark.parametrize("num_samples, words", [(0, "empty"), (480_001, "30 s at most")])
def test_neither_empty_nor_longer_than_30_s(num_samples, words):
    with pytest.raises(AudioError, match=words):
        num_audio_tokens(num_samples)
    with pytest.raises(AudioError, match=words):
        log_mel(np.zeros(num_samples, np.float32))


def test_every_length_gives_1_to_750_tokens():
    tokens = [num_audio_tokens(n) for n in range(1, 480_001, 13)]
    assert tokens == sorted(tokens) and set(tokens) == set(range(1, 751))
    assert num_audio_tokens(480_000) == 750


def test_128_bands():
    assert log_mel(waveform("chirp-3.27"), n_mels=128).shape == (128, 328)


def test_features_cost_what_the_clip_lasts():
    def seconds(num_samples: int) -> float:
        clip = np.zeros(num_samples, np.float32)
        durations = []
        for _ in range(15):
            start = time.perf_counter()
            log_mel(clip)
            durations.append(time.perf_counter() - start)
        return min(durations)

    assert seconds(SAMPLE_RATE) < seconds(30 * SAMPLE_RATE) / 2  # a thirtieth of the work


def test_cuts_fall_into_pauses():
    t = np.arange(100 * SAMPLE_RATE) / SAMPLE_RATE
    speaking = t % 4 < 3.7  # a pause of 0.3 s every 4 s
    speech = (np.sin(2 * np.pi * 200 * t) * np.where(speaking, 0.5, 0.001)).astype(np.float32)
    pieces = split_audio(speech)
    cuts = np.cumsum([len(piece) for piece in pieces])[:-1] / SAMPLE_RATE
    assert len(pieces) == 4 and np.all(cuts % 4 > 3.7)


@pytest.mark.parametrize("clip", [np.zeros(70 * SAMPLE_RATE, np.float32), np.full(70 * SAMPLE_RATE, 0.5, np.float32)])
def test_without_pauses_pieces_are_long(clip):
    assert [len(piece) // SAMPLE_RATE for piece in split_audio(clip)][:2] == [29, 29]


@settings(max_examples=200, deadline=None)
@given(
    num_samples=st.integers(0, 100_000),
    max_seconds=st.floats(0.01, 3.0),
    quiet=st.integers(0, 100),
    seed=st.integers(0, 9),
)
def test_pieces_join_to_the_waveform(num_samples, max_seconds, quiet, seed):
    generator = np.random.default_rng(seed)
    clip = generator.standard_normal(num_samples).astype(np.float32)
    clip[generator.integers(0, 101, num_samples) < quiet] = 0
    pieces = split_audio(clip, max_seconds)
    assert np.array_equal(np.concatenate(pieces), clip)
    assert max(map(len, pieces)) <= max_seconds * SAMPLE_RATE
    if len(pieces) > 1:
        assert min(map(len, pieces)) >= min(SAMPLE_RATE, int(max_seconds * SAMPLE_RATE) // 2)


@pytest.mark.parametrize("extra", [1, 160, 8_000, 16_000, 80_000])
def test_no_piece_is_a_scrap(extra):
    clip = np.random.default_rng(0).standard_normal(480_000 + extra).astype(np.float32)
    lengths = [len(piece) for piece in split_audio(clip)]
    assert len(lengths) == 2 and min(lengths) >= SAMPLE_RATE and max(lengths) <= 480_000


def test_up_to_the_limit_nothing_is_cut():
    clip = np.ones(480_000, np.float32)
    assert len(split_audio(clip)) == 1 and split_audio(clip)[0] is clip
    assert len(split_audio(clip[:0])) == 1


@pytest.mark.slow
def test_hours_take_linear_time():
    clip = np.random.default_rng(0).standard_normal(3600 * SAMPLE_RATE, np.float32)

    def seconds(part: np.ndarray) -> float:
        durations = []
        for _ in range(3):
            start = time.perf_counter()
            split_audio(part)
            durations.append(time.perf_counter() - start)
        return min(durations)

    assert seconds(clip) < 24 * seconds(clip[: len(clip) // 8])  # eight times the length


def test_a_limit_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least 0.01"):
        split_audio(np.zeros(99, np.float32), 0.0)
