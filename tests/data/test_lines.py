"""Data lines: what training and evaluation both accept and refuse."""

import pytest

from qwen_audio_chat.data.lines import (
    NOTE_FIELDS,
    ClipLine,
    DataError,
    DialogueLine,
    OfficialLine,
    audio_paths,
    located,
    parse_json,
    parse_line,
    read_text_lines,
)
from qwen_audio_chat.errors import UserError

GOOD = {"audio": "a.wav", "text": "x"}


def test_the_three_kinds_of_lines():
    clip = parse_line(GOOD | {"heard": "German dog", "words": [[0, "0.5", "x"]], "seconds": 1})
    assert isinstance(clip, ClipLine)
    assert (clip.audio, clip.text, clip.alignment_text, clip.words) == (["a.wav"], ["x"], "German dog", [(0, 0.5, "x")])
    official = parse_line({"audio": "a.wav", "gt": ["x", "y"], "source": "s"})
    assert isinstance(official, OfficialLine) and official.gt == ["x", "y"]
    parts = [{"type": "audio", "audio": "a.wav"}, {"type": "text", "text": "What?"}]
    dialogue = parse_line(
        {"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": "A dog."}]}
    )
    assert isinstance(dialogue, DialogueLine) and dialogue.audio == ["a.wav"]
    assert dialogue.to_messages([7]) == [
        {"role": "user", "content": [{"type": "audio", "audio": 7}, {"type": "text", "text": "What?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "A dog."}]},
    ]


def test_null_and_notes_are_as_good_as_nothing():
    assert parse_line(GOOD | {"task": None, "words": None, "timestamps": None} | dict.fromkeys(NOTE_FIELDS, 5)) == (
        parse_line(GOOD)
    )


def test_a_misspelt_field_is_refused_unless_names_are_not_checked():
    with pytest.raises(DataError, match='there is no field "txet"; known fields are audio, audio_language, heard'):
        parse_line(GOOD | {"txet": "y"})
    assert parse_line(GOOD | {"txet": "y"}, check_names=False) == parse_line(GOOD)


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        ({"audio": "a.wav"}, 'the field "text" is missing: a line needs "audio" and "text", or "messages".'),
        (GOOD | {"seconds": True}, '"seconds" must be a number of at least 0.'),
        (GOOD | {"timestamps": 1}, '"timestamps" must be true or false.'),
        (GOOD | {"heard": 5}, '"heard" must be a text.'),
        (GOOD | {"audio": []}, '"audio" must be the path of a file.'),
        (GOOD | {"task": "{sing}"}, 'there is no task "{sing}"; choose one of transcribe, translate, caption,'),
        ({"messages": [{"role": "assistant", "content": [{"type": "audio", "audio": "a.wav"}]}]}, '"messages" must be'),
    ],
)
def test_what_is_wrong_is_a_sentence_of_our_own(bad, sentence):
    with pytest.raises(DataError) as error:
        parse_line(bad)
    assert str(error.value).startswith(sentence) and "\n" not in str(error.value)


def test_errors_name_file_and_line(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text('\ufeff{"audio": "a.wav", "text": "one\u2028line"}\n\n{oops', encoding="utf-8")
    (first, text), (origin, bad) = read_text_lines(path)
    assert parse_json(text)["text"] == "one\u2028line" and first == f"{path}:1"
    with pytest.raises(DataError, match=r"data.jsonl:3: this isn't JSON \("), located(origin):
        parse_json(bad)
    with pytest.raises(DataError, match="data.jsonl:3: no good"), located(origin):
        raise UserError("no {quality}", quality="good")
    with pytest.raises(DataError, match="the audio file b.wav is missing"):
        audio_paths(["b.wav"], tmp_path)
