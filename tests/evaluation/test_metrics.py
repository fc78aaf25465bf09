"""Each metric against values worked out by hand, and against its library called directly."""

import jiwer
import numpy as np
import pytest
import sacrebleu
from sklearn.metrics import average_precision_score

from qwen_audio_chat.evaluation import caption_metrics as captions
from qwen_audio_chat.evaluation.metrics import (
    Metric,
    accuracy,
    bleu,
    bootstrap,
    chrf,
    edit_counts,
    error_rate,
    mean_average_precision,
)
from qwen_audio_chat.evaluation.note_metrics import note_metrics
from qwen_audio_chat.evaluation.time_metrics import alignment_shift, parse_timed_words, time_metrics, words_to_text
from qwen_audio_chat.prompts.tags import Note, parse_note


def test_word_error_rate_by_hand():
    # One substitution and one deletion of 6 words, then one insertion to 2 words.
    references = ["the cat sat on the mat", "hello world"]
    predictions = ["the bat sat on mat", "hello big world"]
    assert error_rate(references, predictions).value == pytest.approx(3 / 8)
    assert error_rate(references, predictions).value == pytest.approx(jiwer.wer(references, predictions))
    errors, lengths = edit_counts(references, predictions, "word")
    assert errors.tolist() == [2, 1]
    assert lengths.tolist() == [6, 2]


def test_character_error_rate_of_chinese_by_hand():
    # 天气 -> 天汽: one of 6 characters; 北京 -> 北京市: one more character to 4.
    assert error_rate(["今天天气很好", "我爱北京"], ["今天天汽很好", "我爱北京市"], "character").value == pytest.approx(
        0.2
    )


def test_error_rate_of_empty_texts():
    assert error_rate(["a b"], [""]).value == 1.0
    assert error_rate(["", "a"], ["x y", "a"]).value == 2.0  # words where nothing was said are errors, too
    assert error_rate([""], ["x"]).value is None


@pytest.mark.parametrize(
    ("language", "tokenizer", "reference", "guess"),
    [
        ("en", "13a", "The quick brown fox jumps over the dog.", "The quick brown fox jumped over the dog."),
        ("de", "13a", "Der schnelle Fuchs springt über den Hund.", "Der schnelle Fuchs springt über einen Hund."),
        ("zh", "zh", "我今天去北京看朋友。", "我今天去上海看朋友。"),
        ("ja", "ja-mecab", "私は東京に住んでいます。", "私は京都に住んでいます。"),
    ],
)
def test_bleu_is_sacrebleus(language, tokenizer, reference, guess):
    expected = sacrebleu.corpus_bleu([guess, reference], [[reference, reference]], tokenize=tokenizer).score
    score = bleu([[reference], [reference]], [guess, reference], language)
    assert score.value == pytest.approx(expected)
    assert 0 < score.value < 100
    assert f"tok:{tokenizer}" in score.note


def test_bleu_by_hand():
    # "a b c d e" against "a b c d": all n-grams right, brevity penalty exp(1 - 5/4).
    assert bleu([["a b c d e"]], ["a b c d"]).value == pytest.approx(100 * np.exp(-0.25))


def test_bleu_takes_several_references():
    assert bleu([["x y z w", "a b c d"], ["e f g h"]], ["a b c d", "e f g h"]).value == pytest.approx(100)


def test_bleu_of_japanese_without_mecab_is_not_computed(monkeypatch):
    def missing(self):
        raise RuntimeError("no MeCab")

    monkeypatch.setattr("sacrebleu.tokenizers.tokenizer_ja_mecab.TokenizerJaMecab.__init__", missing)
    score = bleu([["私"]], ["私"], "ja")
    assert score.value is None
    assert "sacrebleu[ja]" in score.note


def test_chrf_is_sacrebleus():
    expected = sacrebleu.corpus_chrf(["le chat noir"], [["the black cat"]]).score
    assert chrf([["the black cat"]], ["le chat noir"]).value == pytest.approx(expected)
    assert chrf([["the black cat"]], ["the black cat"]).value == pytest.approx(100)


def test_intervals_of_bleu_and_chrf_contain_the_value():
    pairs = [("the cat sat on the mat today", "the cat sat on a mat today"), ("a b c d e", "v w x y z")] * 10
    references, guesses = [[reference] for reference, _ in pairs], [guess for _, guess in pairs]
    for score in (bleu(references, guesses), chrf(references, guesses)):
        assert score.interval[0] < score.value < score.interval[1]
    # Nothing right at all: sacrebleu's own bootstrap fails here.
    assert chrf([["hat"], ["sun"]], ["x", "x"]).interval == (0, 0)


@pytest.mark.slow
def test_mean_average_precision_by_hand():
    # bright: found in 1 of 2, no false one: ranked first, so AP = 1/2 * 1 + 1/2 * 2/3. dark: one of two guesses right.
    references = [{"bright"}, {"bright", "dark"}, {"dark"}]
    predictions = [{"bright"}, {"dark"}, {"dark"}]
    truth = np.array([[1, 0], [1, 1], [0, 1]])
    guess = np.array([[1.0, 0], [0, 1], [0, 1]])
    score = mean_average_precision(references, predictions)
    assert score.value == pytest.approx(average_precision_score(truth, guess, average="macro"))
    assert score.value == pytest.approx(((1 / 2 + 1 / 2 * 2 / 3) + 1) / 2)
    assert mean_average_precision([set()], [{"bright"}]).value is None


def test_bootstrap_interval_covers_and_is_repeatable():
    first, second = accuracy([True] * 70 + [False] * 30), accuracy([True] * 70 + [False] * 30)
    assert first == second
    assert first.value == pytest.approx(0.7)
    low, high = first.interval
    # The normal approximation: 0.7 +- 1.96 sqrt(0.21 / 100).
    assert low == pytest.approx(0.61, abs=0.02)
    assert high == pytest.approx(0.79, abs=0.02)
    assert bootstrap(np.mean, np.array([3.0])).interval is None


def test_not_computed_is_not_zero():
    assert str(Metric.not_computed("no Java")) == "not computed"
    assert accuracy([]).value is None


REFERENCE = "<|0.00|><|sil|><|0.54|>面<|0.86|>条<|1.17|>机<|1.46|><|sil|><|2.01|>"


def test_timed_words_of_the_papers_example():
    words = parse_timed_words(REFERENCE)
    assert [(word.word, word.start, word.end) for word in words] == [
        ("<|sil|>", 0.0, 0.54),
        ("面", 0.54, 0.86),
        ("条", 0.86, 1.17),
        ("机", 1.17, 1.46),
        ("<|sil|>", 1.46, 2.01),
    ]
    # The model answers what follows the prompt's <|0.00|>.
    assert parse_timed_words(REFERENCE.removeprefix("<|0.00|>")) == words
    assert parse_timed_words("<|zh|>" + REFERENCE) == words
    assert parse_timed_words("面条机") is None
    assert parse_timed_words("") is None


def test_words_become_the_papers_format():
    assert words_to_text([(0.54, 0.86, "one"), (0.86, 1.17, "two"), (1.3, 1.46, "three")]) == (
        "<|0.00|><|sil|><|0.54|>one<|0.86|>two<|1.17|><|sil|><|1.30|>three<|1.46|>"
    )


def test_alignment_shift_by_hand():
    guess = "<|0.00|><|sil|><|0.60|>面<|0.90|>包<|1.20|>机<|1.46|>"
    shift = alignment_shift(parse_timed_words(REFERENCE), parse_timed_words(guess))
    # Equal words: the first silence (0, 0.06), 面 (0.06, 0.04), 机 (0.03, 0).
    assert shift.starts == pytest.approx([0, 0.06, 0.03])
    assert shift.ends == pytest.approx([0.06, 0.04, 0.0])
    assert shift.silent.tolist() == [True, False, False]
    scores = time_metrics([REFERENCE, REFERENCE], [guess, "no times"])
    assert scores["aas_ms"].value == pytest.approx(1000 * 0.19 / 3)
    assert scores["median_shift_ms"].value == pytest.approx(35)  # of 60, 40, 30 and 0 ms
    assert scores["parsed"].value == pytest.approx(0.5)


def test_timing_without_anything_in_common():
    scores = time_metrics([REFERENCE], ["nothing"])
    assert scores["aas_ms"].value is None
    assert scores["parsed"].value == 0


@pytest.mark.slow
def test_notes_by_hand():
    references = [Note(60, 100, "guitar", ("bright",)), Note(72, 50, "flute", ("dark",)), Note(61, 75, "organ", ())]
    predictions = [Note(61, 100, "guitar", ("bright",)), Note(60, 75, "flute", ("dark", "odd")), Note()]
    scores = {name: metric.value for name, metric in note_metrics(references, predictions).items()}
    assert scores["pitch_accuracy"] == 0
    assert scores["pitch_within_semitone"] == pytest.approx(1 / 3)
    assert scores["chroma_accuracy"] == pytest.approx(1 / 3)  # 72 and 60 are both C; no answer is no C
    assert scores["velocity_accuracy"] == pytest.approx(1 / 3)
    assert scores["instrument_accuracy"] == pytest.approx(2 / 3)
    assert scores["qualities_map"] == pytest.approx(1.0)


def test_notes_in_the_official_output_format():
    text = "<|pitch|><|midi_pitch_60|><|velocity|><|midi_velocity_75|><|instrument|>organ<|sonic|>dark, nonlinear_env"
    scores = note_metrics([parse_note(text)], [parse_note(text)])
    assert {name: metric.value for name, metric in scores.items()} == dict.fromkeys(scores, 1.0)


CAPTIONS = [["a dog barks loudly", "a dog is barking"], ["rain falls on a roof", "heavy rain is falling"]]
GUESSES = ["a dog barks loudly", "rain is falling on a roof"]


def cider(captions: list[list[str]], guesses: list[str]) -> float:
    from pycocoevalcap.cider.cider import Cider

    return Cider().compute_score(dict(enumerate(captions)), {n: [text] for n, text in enumerate(guesses)})[0]


def test_captions_without_java(monkeypatch):
    monkeypatch.setattr(captions.shutil, "which", lambda name: None)
    written = [[f"{text.capitalize()}." for text in group] for group in CAPTIONS]
    scores = captions.caption_metrics(written, GUESSES)
    for name in ("meteor", "spice", "spider"):
        assert scores[name].value is None and "Java" in scores[name].note
    assert scores["cider"].value == pytest.approx(cider(CAPTIONS, GUESSES))
    assert scores["bleu_1"].value == pytest.approx(1.0)  # every word stands in a reference of its clip
    assert "needs Java" in scores["cider"].note and scores["chrf"].value > 0


def test_captions_without_the_coco_tools(monkeypatch):
    monkeypatch.setattr(captions, "find_spec", lambda name: None)
    scores = captions.caption_metrics(CAPTIONS, GUESSES)
    assert all(scores[name].value is None and "pip install" in scores[name].note for name in captions.COCO_METRICS)


@pytest.mark.slow
def test_captions_with_java():
    if not captions.shutil.which("java"):
        pytest.skip("no Java")
    scores = captions.caption_metrics(CAPTIONS, GUESSES)
    # These captions have no punctuation or capitals, so that the Penn Treebank tokenizer leaves them as they are.
    assert scores["cider"].value == pytest.approx(cider(CAPTIONS, GUESSES))
    assert scores["bleu_1"].value == pytest.approx(1.0)
    assert 0 < scores["meteor"].value <= 1
    if scores["spice"].value is None:
        assert "CoreNLP" in scores["spice"].note
        assert scores["spider"].value is None
