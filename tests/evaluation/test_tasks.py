"""What each task asks: the prompts of the released evaluation scripts, character by character."""

import pytest

from qwen_audio_chat.data.lines import DataError
from qwen_audio_chat.evaluation.predictions import Prediction
from qwen_audio_chat.evaluation.prompting import chat_messages, languages, tag_prompt
from qwen_audio_chat.evaluation.published import PUBLISHED, published_for
from qwen_audio_chat.evaluation.samples import Sample
from qwen_audio_chat.evaluation.tasks import TASKS


def sample(**fields) -> Sample:
    return Sample(index=0, name="a.wav", audios=("a.wav",), references=("x",), **fields)


@pytest.mark.parametrize(
    ("task", "fields", "prompt", "limit"),
    [
        (
            "asr",
            {"source": "librispeech_test_clean"},
            "<|startoftranscript|><|en|><|transcribe|><|en|><|notimestamps|><|wo_itn|>",
            256,
        ),
        (
            "asr",
            {"source": "aishell1_test"},
            "<|startoftranscript|><|zh|><|transcribe|><|zh|><|notimestamps|><|wo_itn|>",
            256,
        ),
        (
            "s2tt",
            {"source": "covost2_en_zh_test"},
            "<|startoftranscript|><|en|><|translate|><|zh|><|notimestamps|><|itn|>",
            256,
        ),
        (
            "srwt",
            {"audio_language": "zh"},
            "<|startoftranscript|><|zh|><|transcribe|><|zh|><|timestamps|><|0.00|>",
            256,
        ),
        ("aac", {}, "<|startofanalysis|><|unknown|><|caption|><|en|><|notimestamps|><|caption_clotho|>", 30),
        ("asc", {}, "<|startofanalysis|><|unknown|><|keyword|><|en|><|notimestamps|><|scene|>", 10),
        ("ser", {}, "<|startofanalysis|><|en|><|keyword|><|en|><|notimestamps|><|emotion_recognition|>", 4),
        (
            "aqa",
            {"question": "Is it raining?"},
            "<|startofanalysis|><|en|><|question|>Is it raining?<|answer|>",
            4,
        ),
        ("vsc", {}, "<|startofanalysis|><|en|><|keyword|><|en|><|notimestamps|><|vocal_classification|>", 4),
        ("mna", {}, "<|startofanalysis|><|unknown|><|keyword|><|en|><|notimestamps|><|note_analysis|>", 30),
    ],
)
def test_tag_prompts_of_the_released_scripts(task, fields, prompt, limit):
    assert str(tag_prompt(TASKS[task], sample(**fields))) == prompt
    assert TASKS[task].max_new_tokens == limit


def test_a_samples_own_fields_come_first():
    prompt = tag_prompt(TASKS["aac"], sample(instruction="caption_audiocaps", audio_language="en", text_language="zh"))
    assert str(prompt) == "<|startofanalysis|><|en|><|caption|><|zh|><|notimestamps|><|caption_audiocaps|>"
    assert languages(TASKS["s2tt"], sample(source="covost2_en_de_test", audio_language="fr", text_language="it")) == (
        "fr",
        "it",
    )


def test_a_line_that_names_its_task_but_no_instruction_has_none():
    prompt = tag_prompt(TASKS["sound"], sample(task="keyword", audio_language="unknown"))
    assert str(prompt) == "<|startofanalysis|><|unknown|><|keyword|><|en|><|notimestamps|>"
    prompt = tag_prompt(TASKS["s2tt"], sample(task="translate", audio_language="fr"))
    assert str(prompt) == "<|startoftranscript|><|fr|><|translate|><|en|><|notimestamps|>"
    # as everywhere, plain transcription is without inverse text normalisation
    assert tag_prompt(TASKS["asr"], sample(task="transcribe")).instruction == "wo_itn"


@pytest.mark.parametrize(
    ("fields", "tasks"),
    [
        ({}, set(TASKS)),
        ({"task": "transcribe"}, {"asr"}),
        ({"task": "transcribe", "timestamps": True}, {"asr", "srwt"}),
        ({"timestamps": True}, {"asr", "srwt"}),
        ({"instruction": "itn"}, {"asr", "srwt", "s2tt"}),
        ({"task": "translate"}, {"s2tt"}),
        ({"task": "caption"}, {"aac"}),
        ({"instruction": "caption_audiocaps"}, {"aac"}),
        ({"instruction": "scene"}, {"asc"}),
        ({"task": "keyword", "instruction": "event"}, {"sound"}),
        ({"task": "keyword"}, {"asc", "ser", "vsc", "mna", "sound"}),
        ({"task": "question", "question": "Is it?"}, {"aqa", "lid", "chat"}),
        ({"messages": ({"role": "user", "content": "hi"},)}, {"chat"}),
    ],
)
def test_a_line_belongs_to_the_task_that_it_names(fields, tasks):
    assert {name for name, task in TASKS.items() if task.fits(sample(**fields))} == tasks


def test_language_of_speech_where_nothing_names_it():
    assert languages(TASKS["asr"], sample(), "de") == ("de", "de")
    assert languages(TASKS["s2tt"], sample(), "de") == ("de", "en")


@pytest.mark.parametrize("task", [name for name in TASKS if name != "aqa"])
def test_every_task_has_a_chat_question(task):
    [message] = chat_messages(TASKS[task], sample(), ["wave"])
    assert message["content"][0] == {"type": "audio", "audio": "wave"}
    assert message["content"][1]["text"].endswith((".", "?"))


def test_translation_question_names_the_language():
    [message] = chat_messages(TASKS["s2tt"], sample(source="covost2_en_de_test"), ["wave"])
    assert "German" in message["content"][1]["text"]


def test_a_missing_question_is_one_sentence():
    with pytest.raises(DataError, match=r'Sample 1 \(a.wav\) needs a "question"'):
        tag_prompt(TASKS["aqa"], sample())
    with pytest.raises(DataError, match="question"):
        chat_messages(TASKS["aqa"], sample(), ["wave"])


def test_open_questions_have_no_tags():
    with pytest.raises(DataError, match="--prompt chat"):
        tag_prompt(TASKS["chat"], sample())


def test_the_language_is_asked_as_a_question():
    prompt = "<|startofanalysis|><|unknown|><|question|>Which language is spoken?<|answer|>"
    assert str(tag_prompt(TASKS["lid"], sample())) == prompt


def answer(prediction: str, *references: str, **fields) -> Prediction:
    return Prediction(index=0, audio="a.wav", references=references, prediction=prediction, **fields)


def values(task: str, predictions: list[Prediction], normalization: str) -> dict[str, float | None]:
    return {name: metric.value for name, metric in TASKS[task].score(predictions, normalization).items()}


@pytest.mark.slow
def test_scores_of_official_rows_of_each_task():
    """One right and one wrong answer per task, in the output format of the released model."""
    zh = {"audio_language": "zh", "text_language": "zh"}
    rows = [answer("<|zh|>今天天气", "今天 天气", **zh), answer("你好吗", "你好嘛", **zh)]
    assert values("asr", rows, "official") == {"cer": pytest.approx(1 / 7)}
    rows = [answer("mister quilter", "mister Quilter"), answer("a b", "a c")]
    assert values("asr", rows, "official")["wer"] == pytest.approx(1 / 4)

    rows = [answer("guten Tag mein Freund", "guten Tag mein Freund", text_language="de")]
    assert values("s2tt", rows, "none")["bleu"] == pytest.approx(100)

    timed = answer("<|sil|><|0.60|>面<|0.86|>", "<|0.00|><|sil|><|0.54|>面<|0.86|>", **zh)
    scores = values("srwt", [timed], "official")
    assert scores["aas_ms"] == pytest.approx(60)  # 60 ms at the end of the silence, 60 ms at the start of the word
    assert scores["cer"] == 0

    assert values("aac", [answer("a dog barks", "a dog barks", "barking")], "none")["chrf"] == pytest.approx(100)
    for task in ("asc", "ser", "vsc", "sound", "lid"):
        rows = [answer("street", "street"), answer("It is a park.", "park"), answer("bus", "street")]
        scores = values(task, rows, "lower_no_punctuation")
        assert scores == {"accuracy": pytest.approx(1 / 3), "named_accuracy": pytest.approx(2 / 3), "declined": 0}

    note = "<|pitch|><|midi_pitch_60|><|velocity|><|midi_velocity_75|><|instrument|>organ<|sonic|>dark"
    assert values("mna", [answer(note, note)], "none")["instrument_accuracy"] == 1


def test_a_short_yes_or_no_counts_by_its_first_word():
    rows = [answer("No, it", "no"), answer("yes", "yes"), answer("dog", "dog"), answer("cat", "a cat", "cat")]
    scores = values("aqa", rows, "lower_no_punctuation")
    assert scores == {"accuracy": 0.75, "binary_accuracy": 0.5, "binary_first_word_accuracy": 1.0}


def test_declining_is_right_where_there_is_nothing_to_tell():
    nothing = "There is no speech in this audio that I can make out."
    rows = [
        answer("I can't hear any speech in this audio.", nothing),
        answer("the cat sat", nothing),
        answer("I cannot tell.", "a dog"),
        answer("It is a dog.", "a dog"),
    ]
    scores = values("chat", rows, "lower_no_punctuation")
    assert (scores["declined"], scores["false_refusals"], scores["contains_reference"]) == (0.5, 0.5, 0.5)
    assert values("chat", rows[2:], "lower_no_punctuation")["declined"] is None


def test_longer_labels_hide_shorter_ones():
    rows = [answer("a hot dog", "hot dog"), answer("a dog", "dog"), answer("a dog or a hot dog", "dog")]
    assert values("sound", rows, "lower_no_punctuation")["named_accuracy"] == pytest.approx(2 / 3)


def test_bleu_over_several_target_languages_is_not_computed():
    rows = [answer("a", "a", text_language="en"), answer("b", "b", text_language="zh")]
    assert values("s2tt", rows, "none")["bleu"] is None


def test_published_figures_belong_to_tasks_and_metrics_that_exist():
    assert {row.task for row in PUBLISHED} <= TASKS.keys()
    [row] = published_for("asr", "librispeech-test-clean")
    assert (row.metric, row.value) == ("wer", 0.02)
    assert [row.metric for row in published_for("aqa", "clothoaqa_test")] == ["accuracy", "binary_accuracy"]
    assert published_for("asr", "my recordings") == []
