"""Manifests: what is accepted, and what is said about a bad line."""

import json

import pytest
import soundfile

from qwen_audio_chat.data.lines import DataError
from qwen_audio_chat.evaluation.prompting import languages as asked_languages
from qwen_audio_chat.evaluation.samples import read_jsonl
from qwen_audio_chat.evaluation.tasks import TASKS
from qwen_audio_chat.prompts.tags import TaskPrompt, TimedWord
from qwen_audio_chat.training.manifest import Clip, Dialogue, audio_seconds, read_manifests

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
    assert audio_seconds(clip) == pytest.approx(0.5)


def test_all_fields(write):
    line = {"audio": "a.wav", "task": "transcribe", "audio_language": "fr", "text_language": "fr", "timestamps": True,
            "text": "oui", "words": [[0.1, 0.3, "oui"]], "seconds": 0.5, "speaker": "s", "source": "x"}  # fmt: skip
    (clip,) = read_manifests([write(line)])
    assert clip.prompt == TaskPrompt("transcribe", "fr", "fr", timestamps=True)
    assert clip.words == (TimedWord(0.1, 0.3, "oui"),)


@pytest.mark.parametrize(
    ("line", "languages"),
    [
        ({"audio_language": "de"}, ("de", "de")),
        ({"task": "translate", "audio_language": "de"}, ("de", "en")),
        ({"task": "keyword", "instruction": "event"}, ("unknown", "en")),
        ({"task": "keyword", "instruction": "emotion_recognition"}, ("en", "en")),
        ({"task": "caption", "instruction": "caption_clotho"}, ("unknown", "en")),
        ({"task": "question", "question": "What?"}, ("en", "en")),
    ],
)
def test_training_and_evaluation_take_the_same_languages(write, line, languages):
    path = write({"audio": "a.wav", "text": "x"} | line)
    [clip], [sample] = read_manifests([path]), read_jsonl(path)
    assert (clip.prompt.audio_language, clip.prompt.text_language) == languages
    names = {"translate": "s2tt", "keyword": "sound", "caption": "aac", "question": "lid"}
    assert asked_languages(TASKS[names.get(sample.task, "asr")], sample) == languages


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


ASKED, ANSWER = {"role": "user", "content": "x"}, {"role": "assistant", "content": "x"}
BAD = {
    "this isn't JSON": "{oops",
    "must be a JSON object": "[1]",
    '"audio" and "text"': {"text": "x"},
    "audio file missing.wav is missing": {"audio": "missing.wav", "text": "x"},
    "text is empty": {"audio": "a.wav", "text": "  "},
    'there is no task "guess"; choose one of': {"audio": "a.wav", "text": "x", "task": "guess"},
    "not audio|decode|damaged|holds no": {"audio": "broken.wav", "text": "x"},
    "at least one assistant": {"messages": [{"role": "user", "content": QUESTION}]},
    "assistant's message is empty": {"messages": [ASKED, {"role": "assistant", "content": ""}]},
    "begins with a user": {"messages": [{"role": "assistant", "content": "x"}]},
    'turns with .* "content": a text': {"messages": [{"role": "user", "content": None}, ANSWER]},
    '"audio" must be the path of a file': {"messages": [{"role": "user", "content": [{"type": "audio", "audio": 5}]}]},
    '"messages" must be turns with a "role"': {"messages": [{"role": "robot", "content": "x"}]},
    '"messages" must be turns': {"messages": ["hi"]},
    'or parts {"type": "text"': {"messages": [{"role": "user", "content": ["hi"]}, ANSWER]},
    'there is no audio_language "pl"; choose one of': {"audio": "a.wav", "text": "x", "audio_language": "pl"},
    'there is no instruction "guess"; choose one of': {"audio": "a.wav", "text": "x", "instruction": "guess"},
    "must rise": {"audio": "a.wav", "text": "x", "timestamps": True, "words": [[29.0, 31.0, "x"]]},
    "must be a number": {"audio": "a.wav", "text": "x", "seconds": "2"},
    "number of at least 0": {"audio": "a.wav", "text": "x", "seconds": float("nan")},
    "words must rise": {"audio": "a.wav", "text": "x", "words": [[0.3, 0.4, "b"], [0.1, 0.2, "a"]]},
    '"words" must be a list of': {"audio": "a.wav", "text": "x", "words": [[0.1, 0.2, None]]},
    "ends after the clip": {"audio": "a.wav", "text": "x", "seconds": 0.5, "words": [[0.1, 9.0, "x"]]},
    "true or false": {"audio": "a.wav", "text": "x", "timestamps": "no"},
    '"split" must be one of': {"audio": "a.wav", "text": "x", "split": "Train"},
    '"question" must be a text': {"audio": "a.wav", "text": "x", "task": "question", "question": ["a"]},
    'field "audio" is missing': {"audio": None, "text": "x"},
    "a note's text": {"audio": "a.wav", "text": "C4", "task": "keyword", "instruction": "note_analysis"},
    "half of a character": '{"audio": "a.wav", "text": "\\ud800"}',
    "too deep": "[" * 100_000,
    "audio file aaa.* is missing": {"audio": "a" * 300, "text": "x"},
    "a word with times is empty": {"audio": "a.wav", "text": "x", "words": [[0.1, 0.2, " "]]},
    'there is no field "audio_langauge"; known fields are': {"audio": "a.wav", "text": "x", "audio_langauge": "fr"},
    "one audio and one text": {"audio": "a.wav", "text": ["x", "y"]},
    "a line to learn from": {"audio": "a.wav", "gt": "x"},
    'takes one|no other task takes': {"audio": "a.wav", "text": "x", "question": "Why?"},
    'needs "words"': {"audio": "a.wav", "text": "x", "timestamps": True},
}  # fmt: skip


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_line_is_refused_with_its_number(write, reason):
    path = write({"audio": "a.wav", "text": "good"}, BAD[reason])
    with pytest.raises(DataError, match=f"(?s)1 bad line.*data.jsonl:2: .*({reason})"):
        read_manifests([path])


def test_bad_lines_can_be_skipped(write, caplog):
    path = write(*BAD.values(), {"audio": "a.wav", "text": "good"})
    (clip,) = read_manifests([path], on_error="skip")
    assert clip.origin.endswith(f":{len(BAD) + 1}")
    assert sum("skipped" in record.getMessage() for record in caplog.records) == len(BAD)


def test_nothing_usable_is_an_error(write):
    with pytest.raises(DataError, match="no usable example"):
        read_manifests([write("{oops")], on_error="skip")
    with pytest.raises(DataError, match="cannot be read"):
        read_manifests(["/nowhere/x.jsonl"])
