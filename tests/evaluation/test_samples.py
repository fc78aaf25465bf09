import json

import datasets
import numpy as np
import pytest
import soundfile

from qwen_audio_chat.data.lines import LANGUAGE_TAGS, DataError
from qwen_audio_chat.evaluation.samples import fingerprint, read_hub, read_jsonl
from qwen_audio_chat.prompts.tokenizer import TASK_TAGS


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "clips").mkdir()
    soundfile.write(tmp_path / "clips" / "a.wav", np.zeros(1600), 16000)
    return tmp_path


def write(folder, *rows):
    path = folder / "data.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return path


def test_minimal_manifest_line(folder):
    [sample] = read_jsonl(write(folder, {"audio": "clips/a.wav", "text": "hello"}))
    assert sample.audios == (folder / "clips" / "a.wav",)
    assert sample.references == ("hello",)
    assert not sample.official


def test_audio_may_lie_in_another_folder(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("elsewhere") / "data.jsonl"
    path.write_text('{"audio": "clips/a.wav", "gt": "x", "source": "s"}')
    assert read_jsonl(path, folder)[0].audios == (folder / "clips" / "a.wav",)
    with pytest.raises(DataError, match="data.jsonl:1: the audio file clips/a.wav is missing"):
        read_jsonl(path)


def test_official_line(folder):
    row = {"audio": "clips/a.wav", "gt": ["yes", "no"], "source": "clothoaqa_test", "question": "Is it?"}
    [sample] = read_jsonl(write(folder, row))
    assert sample.official
    assert sample.references == ("yes", "no")
    assert (sample.source, sample.question) == ("clothoaqa_test", "Is it?")


def test_full_manifest_line_and_empty_lines(folder):
    row = {
        "audio": "clips/a.wav", "task": "transcribe", "audio_language": "en", "text_language": "en",
        "timestamps": True, "instruction": None, "question": None, "text": "one", "source": "s", "speaker": "p",
        "split": "test", "words": [[0.1, 0.2, "one"]],
    }  # fmt: skip
    first, second = read_jsonl(write(folder, row, "", row))
    assert first.words == ((0.1, 0.2, "one"),)
    assert (first.index, second.index) == (0, 1)


def test_rare_line_ends_stay_in_the_text(folder):
    path = folder / "data.jsonl"
    path.write_text(json.dumps({"audio": "clips/a.wav", "text": "a\u2028b\x85c"}, ensure_ascii=False) + "\r\n")
    assert read_jsonl(path)[0].references == ("a\u2028b\x85c",)


def test_notes_about_a_clip_are_welcome(folder):
    row = {"audio": "clips/a.wav", "text": "x", "id": 7, "seconds": 0.1, "suite": "s", "written": "X", "speaker": "p"}
    assert len(read_jsonl(write(folder, row))) == 1


def test_dialogue_asks_for_its_last_answer(folder):
    def user(*parts):
        return {"role": "user", "content": list(parts)}

    audio = {"type": "audio", "audio": "clips/a.wav"}
    row = {
        "messages": [
            user(audio, {"type": "text", "text": "What is it?"}),
            {"role": "assistant", "content": "A dog."},
            user(audio, {"type": "text", "text": "And this?"}),
            {"role": "assistant", "content": "A cat."},
        ]
    }
    [sample] = read_jsonl(write(folder, row))
    assert sample.references == ("A cat.",)
    assert len(sample.audios) == 2
    assert [message["role"] for message in sample.messages] == ["user", "assistant", "user"]
    assert sample.messages[2]["content"][0] == {"type": "audio", "audio": 1}


def talk(*content, role="user", answer="A dog."):
    """A dialogue of one question, whose content is a list of parts, or one malformed thing."""
    return {"messages": [{"role": role, "content": list(content)}, {"role": "assistant", "content": answer}]}


def test_an_answer_may_be_a_list_of_parts(folder):
    parts = [{"type": "text", "text": "A "}, {"type": "text", "text": "dog."}]
    [sample] = read_jsonl(write(folder, talk({"type": "text", "text": "What?"}, answer=parts)))
    assert sample.references == ("A dog.",)


GOOD = {"audio": "clips/a.wav", "text": "x"}


def test_lines_for_training_are_left_out_and_counted(folder, caplog):
    lines = [GOOD | {"text": text, "split": split} for text, split in (("a", "train"), ("b", "test"), ("c", "dev"))]
    missing = {"audio": "elsewhere.wav", "text": "d"}  # in a file with splits, a line without one is for training
    path = write(folder, *lines, missing)
    assert [sample.references for sample in read_jsonl(path)] == [("b",), ("c",)]
    assert 'data.jsonl: left out 2 of 4 lines, which are of the split "train"' in caplog.text
    assert [sample.references for sample in read_jsonl(path, split="dev")] == [("c",)]
    with pytest.raises(DataError, match='has no samples but those of the split "train", which need --split train'):
        read_jsonl(write(folder, lines[0]))


def test_languages_are_those_of_the_tags():
    assert {*LANGUAGE_TAGS} <= {*TASK_TAGS}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("{not json", "data.jsonl:2: this isn't JSON"),
        ("[1]", "data.jsonl:2: a line must be a JSON object"),
        ({"text": "x"}, 'data.jsonl:2: the field "audio" is missing'),
        ({"audio": "clips/a.wav"}, 'data.jsonl:2: the field "text" is missing'),
        ({"audio": "clips/b.wav", "text": "x"}, "data.jsonl:2: the audio file clips/b.wav is missing"),
        ({"audio": 3, "text": "x"}, 'data.jsonl:2: "audio" must be the path'),
        ({**GOOD, "txet": "y"}, 'data.jsonl:2: there is no field "txet"'),
        ({**GOOD, "task": "sing"}, 'data.jsonl:2: there is no task "sing"'),
        ({**GOOD, "text": {"a": 1}}, 'data.jsonl:2: "text" must be a text'),
        ({**GOOD, "text": []}, 'data.jsonl:2: "text" must be a text'),
        ({**GOOD, "question": 4}, 'data.jsonl:2: "question" must be a text'),
        ({**GOOD, "words": [["a", "b"]]}, 'data.jsonl:2: "words" must be a list'),
        ({"messages": "hi"}, 'data.jsonl:2: "messages" must be turns'),
        ({"messages": []}, 'data.jsonl:2: "messages" must be turns'),
        ({"messages": [{"role": "user", "content": "hi"}]}, "data.jsonl:2: a dialogue must end with an assistant"),
        ({"messages": [{"role": "assistant", "content": "hi"}]}, "data.jsonl:2: a dialogue must end with an assistant"),
        (talk({"type": "text", "text": "What?"}, answer=" "), "data.jsonl:2: a dialogue must end with an assistant"),
        ({"messages": ["hi"]}, 'data.jsonl:2: "messages" must be turns'),
        ({"messages": [{"role": "user", "content": 5}]}, 'data.jsonl:2: "messages" must be turns'),
        (talk({"type": "text"}), 'data.jsonl:2: "messages" must be turns'),
        (talk({"type": "text", "text": 5}), 'data.jsonl:2: "messages" must be turns'),
        (talk({"type": "video", "video": "a.mp4"}), 'data.jsonl:2: "messages" must be turns'),
        (talk("text"), 'data.jsonl:2: "messages" must be turns'),
        (talk({"type": "text", "text": "x"}, role="robot"), 'data.jsonl:2: "messages" must be turns'),
        (talk({"type": "audio", "audio": 5}), 'data.jsonl:2: "audio" must be the path'),
        (talk({"type": "text", "text": "\ud83d"}), "data.jsonl:2: half of a character"),
        ({**GOOD, "text": "\ud83d"}, "data.jsonl:2: half of a character"),
        ("[" * 100000, "data.jsonl:2: this isn't JSON"),
        ("1" * 5000, "data.jsonl:2: this isn't JSON"),
        ({"audio": "a" * 300, "text": "x"}, "data.jsonl:2: the audio file aaa"),
        ({**GOOD, "audio_language": "xx"}, 'data.jsonl:2: there is no audio_language "xx"; choose one of en, zh,'),
        ({**GOOD, "text_language": "xx"}, 'data.jsonl:2: there is no text_language "xx"; choose one of en, zh,'),
        (
            {**GOOD, "instruction": "zzz"},
            'data.jsonl:2: there is no instruction "zzz"; choose one of caption_audiocaps,',
        ),
    ],
)
def test_what_is_wrong_is_one_sentence_with_the_line(folder, bad, message):
    with pytest.raises(DataError) as error:
        read_jsonl(write(folder, GOOD, bad))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_empty_or_binary_file(folder):
    with pytest.raises(DataError, match="cannot be read"):
        read_jsonl(folder / "nothing.jsonl")
    with pytest.raises(DataError, match="no samples"):
        read_jsonl(write(folder, ""))
    (folder / "data.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="UTF-8"):
        read_jsonl(folder / "data.jsonl")


@pytest.mark.parametrize(
    "change",
    [
        {"text": "y"},
        {"source": "s"},
        {"question": "q"},
        {"task": "translate"},
        {"audio_language": "de"},
        {"text_language": "de"},
        {"instruction": "itn"},
        {"timestamps": True},
        {"words": [[0.0, 0.1, "x"]]},
    ],
)
def test_fingerprint_covers_all_that_is_asked_and_scored(folder, change):
    one, other = read_jsonl(write(folder, GOOD)), read_jsonl(write(folder, GOOD | change))
    assert fingerprint(one) == fingerprint(list(one)) != fingerprint(other)


def test_fingerprint_covers_the_sound(folder):
    samples = read_jsonl(write(folder, GOOD))
    before = fingerprint(samples)
    soundfile.write(folder / "clips" / "a.wav", np.ones(1600) / 2, 16000)
    assert fingerprint(samples) != before


def test_hugging_face_data_stays_encoded(folder):
    wave = (folder / "clips" / "a.wav").read_bytes()
    rows = {
        "audio": [{"bytes": wave, "path": "a.wav"}, {"bytes": None, "path": str(folder / "clips" / "a.wav")}],
        "sentence": ["hello", "you"],
    }
    table = datasets.Dataset.from_dict(rows).cast_column("audio", datasets.Audio(decode=False))
    (folder / "hub").mkdir()
    table.to_parquet(folder / "hub" / "test.parquet")
    first, second = read_hub(str(folder / "hub"), "test", text_column="sentence")
    assert (first.name, first.references, first.audios[0]()) == ("a.wav", ("hello",), wave)
    assert fingerprint([first])
    assert second.audios[0].name == "a.wav"
    with pytest.raises(DataError, match='has no column "text"; it has audio, sentence'):
        read_hub(str(folder / "hub"), "test")
    with pytest.raises(DataError, match="can't be read"):
        read_hub(str(folder / "nowhere"), "test")
