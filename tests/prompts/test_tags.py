"""The multi-task format: exact prompts of the release, answers as data."""

import pytest

from qwen_audio_chat.prompts.tags import (
    Note,
    TaskPrompt,
    TimedWord,
    parse_note,
    parse_words,
    show_times,
    strip_tags,
    time_spans,
)

PROMPTS = [  # each evaluation script of the release
    (
        TaskPrompt("transcribe", "en", "en", instruction="wo_itn"),
        "<|startoftranscript|><|en|><|transcribe|><|en|><|notimestamps|><|wo_itn|>",
    ),
    (
        TaskPrompt("translate", "de", "en", instruction="itn"),
        "<|startoftranscript|><|de|><|translate|><|en|><|notimestamps|><|itn|>",
    ),
    (
        TaskPrompt("transcribe", "zh", "zh", timestamps=True),
        "<|startoftranscript|><|zh|><|transcribe|><|zh|><|timestamps|><|0.00|>",
    ),
    (
        TaskPrompt("caption", "unknown", instruction="caption_clotho"),
        "<|startofanalysis|><|unknown|><|caption|><|en|><|notimestamps|><|caption_clotho|>",
    ),
    (
        TaskPrompt("keyword", "unknown", instruction="scene"),
        "<|startofanalysis|><|unknown|><|keyword|><|en|><|notimestamps|><|scene|>",
    ),
    (
        TaskPrompt("keyword", "en", instruction="emotion_recognition"),
        "<|startofanalysis|><|en|><|keyword|><|en|><|notimestamps|><|emotion_recognition|>",
    ),
    (TaskPrompt("question", question="Is it a dog?"), "<|startofanalysis|><|en|><|question|>Is it a dog?<|answer|>"),
    (
        TaskPrompt("keyword", "en", instruction="vocal_classification"),
        "<|startofanalysis|><|en|><|keyword|><|en|><|notimestamps|><|vocal_classification|>",
    ),
    (
        TaskPrompt("keyword", "unknown", instruction="note_analysis"),
        "<|startofanalysis|><|unknown|><|keyword|><|en|><|notimestamps|><|note_analysis|>",
    ),
]


@pytest.mark.parametrize(("prompt", "tags"), PROMPTS)
def test_prompts_of_the_release(prompt, tags):
    assert str(prompt) == tags


def test_wrong_prompts_are_refused():
    with pytest.raises(ValueError, match="Unknown task"):
        TaskPrompt("sing")
    with pytest.raises(ValueError, match="question"):
        TaskPrompt("question")
    with pytest.raises(ValueError, match="question"):
        TaskPrompt("transcribe", question="why?")


def test_question_is_text_and_tags_are_ids(tiny_processor):
    ids = tiny_processor.encode_prompt(TaskPrompt("question", question="Is <|en|> a tag?"))
    tags = tiny_processor.tokenizer.convert_tokens_to_ids(
        ["<|startofanalysis|>", "<|en|>", "<|question|>", "<|answer|>"]
    )
    assert [*ids[:3], ids[-1]] == tags
    assert not set(ids[3:-1]) & set(tiny_processor.tokenizer.get_added_vocab().values())


def test_unknown_tag_is_refused(tiny_processor):
    with pytest.raises(ValueError, match="lacks a tag"):
        tiny_processor.encode_prompt(TaskPrompt("transcribe", "xx"))


def test_words_with_times():
    text = "<|sil|><|0.54|>面<|0.86|>条<|1.17|>机<|1.46|><|sil|><|2.01|>"
    assert parse_words(text) == [TimedWord(0.54, 0.86, "面"), TimedWord(0.86, 1.17, "条"), TimedWord(1.17, 1.46, "机")]
    assert parse_words("hello<|0.40|><|0.60|>world<|1.00|>") == [
        TimedWord(0.0, 0.4, "hello"),
        TimedWord(0.6, 1.0, "world"),
    ]
    assert parse_words("no times") == []


def test_spans_of_a_grounding_answer():
    text = 'The word "middle classes" starts at <|2.33|> seconds and ends at <|3.26|> seconds.'
    assert time_spans(text) == [(2.33, 3.26)]
    assert time_spans("<|1.00|>") == [] == time_spans("<|2.00|> to <|1.00|>")
    assert show_times(text) == 'The word "middle classes" starts at 2.33 seconds and ends at 3.26 seconds.'


def test_note():
    text = "<|pitch|><|midi_pitch_60|><|velocity|><|midi_velocity_75|><|instrument|>organ<|sonic|>dark, fast decay"
    assert parse_note(text) == Note(60, 75, "organ", ("dark", "fast decay"))
    assert parse_note("no idea") == Note()


def test_tags_leave_the_text():
    assert strip_tags(" mister <|en|> quilter ") == "mister quilter"
    assert strip_tags("a<|x|>b") == "a b"
