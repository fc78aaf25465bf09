"""Augmentation changes clips at random, and reproducibly."""

import numpy as np
import pytest

from qwen_audio_chat.training.augment import augment, room_response

SECOND = 16_000


@pytest.fixture
def tone():
    return (0.3 * np.sin(2 * np.pi * 440 * np.arange(3 * SECOND) / SECOND)).astype(np.float32)


@pytest.mark.slow
def test_augmentation_keeps_length_range_and_seed(tone):
    changed = 0
    for seed in range(60):
        out = augment(tone, np.random.default_rng(seed))
        assert out.dtype == np.float32 and out.shape == tone.shape
        assert np.isfinite(out).all() and np.abs(out).max() <= 1.0 + 1e-5
        np.testing.assert_array_equal(out, augment(tone, np.random.default_rng(seed)))
        correlation = abs(np.corrcoef(out, tone)[0, 1])
        changed += correlation < 0.99
    assert changed > 20, "most clips are really changed"


def test_augmentation_passes_silence_and_single_samples():
    for clip in (np.zeros(0, np.float32), np.zeros(100, np.float32), np.ones(1, np.float32)):
        out = augment(clip, np.random.default_rng(0))
        assert out.shape == clip.shape and np.isfinite(out).all()


def test_a_room_starts_with_the_direct_sound_and_fades():
    response = room_response(np.random.default_rng(4))
    assert response[0] == 1.0
    energy = np.square(response[16:])
    quarter = len(energy) // 4
    assert energy[:quarter].sum() > 10 * energy[-quarter:].sum()
