"""Manifests: what is accepted, and how a bad line is told."""

import json

import pytest
import soundfile

from qwen_audio_chat.tags import TaskPrompt, TimedWord
from qwen_audio_chat.training.manifest import Clip, Dialogue, ManifestError, read_manifests, seconds

QUESTION = [{"type": "audio", "audio": "a.wav"}, {"type": "text", "text": "What?"}]


@pytest.fixture
def write(tmp_path, clip):
    soundfile.write(tmp_path / "a.wav", clip(0.5), 16000)
    (tmp_path / "broken.wav").write_bytes(b"RIFF....WAVE")

    def make(*lines):
        path = tmp_path / "data.jsonl"
        path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
        return path

    return make


def test_the_shortest_line_is_english_transcription(write, tmp_path):
    (clip,) = read_manifests([write({"audio": "a.wav", "text": "hello"})])
    assert clip == Clip(
        f"{tmp_path}/data.jsonl:1", tmp_path / "a.wav", TaskPrompt("transcribe", instruction="wo_itn"), "hello"
    )
    assert seconds(clip) == pytest.approx(0.5)


def test_all_fields(write):
    line = {"audio": "a.wav", "task": "transcribe", "audio_language": "fr", "text_language": "fr", "timestamps": True,
            "text": "oui", "words": [[0.1, 0.3, "oui"]], "seconds": 0.5, "speaker": "s", "source": "x"}  # fmt: skip
    (clip,) = read_manifests([write(line)])
    assert clip.prompt == TaskPrompt("transcribe", "fr", "fr", timestamps=True)
    assert clip.words == (TimedWord(0.1, 0.3, "oui"),)


def test_any_text_in_unicode_is_one_line(write, tmp_path):
    path = write({"audio": "a.wav", "text": "one"}, '{"audio": "a.wav", "text": "two\u2028three\x85"}')
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # as some editors begin a file
    assert [clip.text for clip in read_manifests([path])] == ["one", "two\u2028three"]


def test_dialogues_and_splits(write, tmp_path):
    talk = {"messages": [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": "a bell"}]}
    path = write(talk, {"audio": "a.wav", "text": "x", "split": "dev"})
    (dialogue,) = read_manifests([path], split="train")
    assert isinstance(dialogue, Dialogue) and dialogue.audios == [tmp_path / "a.wav"]
    assert len(read_manifests([path])) == 2
    assert len(read_manifests([path], split="dev", default_split="dev")) == 2
    assert len(read_manifests([path], split="dev")) == 1


BAD = {
    "not JSON": "{oops",
    "one JSON object": "[1]",
    '"audio" and "text"': {"text": "x"},
    "no file": {"audio": "missing.wav", "text": "x"},
    "text is empty": {"audio": "a.wav", "text": "  "},
    "Unknown task": {"audio": "a.wav", "text": "x", "task": "guess"},
    "not audio|decode|damaged|holds no": {"audio": "broken.wav", "text": "x"},
    "at least one assistant": {"messages": [{"role": "user", "content": QUESTION}]},
    "assistant's message is empty": {"messages": [{"role": "assistant", "content": ""}]},
    "role": {"messages": [{"role": "robot", "content": "x"}]},
    "list of objects": {"messages": ["hi"]},
    "parts of type": {"messages": [{"role": "user", "content": ["hi"]}, {"role": "assistant", "content": "x"}]},
    "no tag <.pl.>": {"audio": "a.wav", "text": "x", "audio_language": "pl"},
    "no tag <.guess.>": {"audio": "a.wav", "text": "x", "instruction": "guess"},
    "must rise": {"audio": "a.wav", "text": "x", "timestamps": True, "words": [[29.0, 31.0, "x"]]},
    "must be a number": {"audio": "a.wav", "text": "x", "seconds": "2"},
    'needs "words"': {"audio": "a.wav", "text": "x", "timestamps": True},
}  # fmt: skip


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_line_is_refused_with_its_number(write, reason):
    path = write({"audio": "a.wav", "text": "good"}, BAD[reason])
    with pytest.raises(ManifestError, match=f"(?s)1 bad line.*data.jsonl:2: .*({reason})"):
        read_manifests([path])


def test_bad_lines_can_be_skipped(write, caplog):
    path = write(*BAD.values(), {"audio": "a.wav", "text": "good"})
    (clip,) = read_manifests([path], on_error="skip")
    assert clip.origin.endswith(f":{len(BAD) + 1}")
    assert sum("skipped" in record.getMessage() for record in caplog.records) == len(BAD)


def test_nothing_usable_is_an_error(write):
    with pytest.raises(ManifestError, match="no usable example"):
        read_manifests([write("{oops")], on_error="skip")
    with pytest.raises(ManifestError, match="cannot be read"):
        read_manifests(["/nowhere/x.jsonl"])
