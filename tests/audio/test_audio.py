"""The `Audio` value: decoded once, cut once, its log-mel computed once."""

import numpy as np
import pytest
import torch

from qwen_audio_chat.audio import audio as audio_module
from qwen_audio_chat.audio.audio import Audio
from qwen_audio_chat.audio.cutting import split_audio
from qwen_audio_chat.audio.decoding import AudioError, to_wav_bytes
from qwen_audio_chat.audio.features import log_mel


def test_a_path_an_array_and_an_audio_are_the_same_sound(tmp_path, clip):
    path = tmp_path / "a.wav"
    path.write_bytes(to_wav_bytes(Audio.load(clip(1.5)).waveform))
    audio = Audio.load(path)
    assert audio.key == Audio.load(clip(1.5)).key != Audio.load(clip(1.5, 300)).key
    assert Audio.load(audio) is audio and audio.seconds == 1.5


def test_it_is_cut_once_and_its_log_mel_is_computed_once(clip, monkeypatch):
    calls = {"split_audio": 0, "log_mel": 0}
    for name in calls:
        original = getattr(audio_module, name)

        def counted(*arguments, name=name, original=original):
            calls[name] += 1
            return original(*arguments)

        monkeypatch.setattr(audio_module, name, counted)
    audio = Audio(clip(65))
    for _ in range(2):
        mels = [piece.log_mel() for piece in audio.pieces()]
        audio.pieces(10)
    assert calls == {"split_audio": 2, "log_mel": 3}
    assert all(map(torch.equal, mels, map(log_mel, split_audio(clip(65)))))
    audio.release()
    audio.pieces()[0].log_mel()
    assert calls["log_mel"] == 4


@pytest.mark.parametrize("store_first", [True, False])
def test_a_stored_audio_and_its_pieces_are_read_from_the_file(tmp_path, clip, store_first):
    waveform = Audio.load(clip(65)).waveform
    audio = Audio(waveform)
    if not store_first:
        audio.pieces(), [piece.pieces(10) for piece in audio.pieces()]
    audio.store(tmp_path / "a.wav")
    assert audio._waveform is None and np.array_equal(audio.waveform, waveform)
    for longest in (30, 10):
        pieces = [part for piece in audio.pieces() for part in piece.pieces(longest)]
        assert np.array_equal(np.concatenate([piece.waveform for piece in pieces]), waveform)
        assert all(piece._waveform is None and piece.file == audio.file for piece in pieces)
        starts = np.cumsum([0, *(piece.num_samples for piece in pieces)])[:-1] / 16000
        assert [piece.start for piece in pieces] == pytest.approx(list(starts))
    assert audio.key == Audio(waveform).key and audio.pieces()[1].key == Audio(waveform).pieces()[1].key


def test_a_deleted_audio_is_refused_in_a_sentence(tmp_path, clip):
    audio = Audio(clip(1))
    audio.store(tmp_path / "a.wav")
    (tmp_path / "a.wav").unlink()
    with pytest.raises(AudioError, match="was deleted"):
        audio.log_mel()
