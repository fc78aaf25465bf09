"""The metrics of each task family. Every scorer takes predictions and the name of a text normalisation."""

import re
from collections.abc import Sequence

from ..prompts.tags import parse_note, strip_tags
from .caption_metrics import caption_metrics
from .metrics import Metric, Unit, accuracy, bleu, chrf, edit_counts, error_rate
from .normalization import CHARACTER_LANGUAGES, normalize
from .note_metrics import note_metrics
from .predictions import Prediction
from .time_metrics import time_metrics

Scores = dict[str, Metric]

DECLINING = re.compile(
    r"\b(can't|cannot|can not|couldn't|could not|unable to|not able to|don't|do not|didn't) "
    r"(\w+ )?(hear|tell|make out|understand|recogni[sz]e|know|answer|identify|find)\b"
    r"|\bthere (is|are|was|were) (no|nothing|only)\b|\b(no|without any) (speech|sound|audio)\b",
    re.IGNORECASE,
)
"""Matches answers which say that the question can't be answered."""


def score_transcripts(predictions: Sequence[Prediction], normalization: str) -> Scores:
    """Word error rate over languages that separate words by spaces, character error rate over all.

    Spaces in Chinese and Japanese don't count.
    """
    texts = [_normalized_pair(prediction, normalization) for prediction in predictions]
    spaced = [
        pair
        for pair, prediction in zip(texts, predictions, strict=True)
        if prediction.text_language not in CHARACTER_LANGUAGES
    ]
    scores = {"wer": _error_rate(spaced, "word")} if spaced else {}
    return scores | {"cer": _error_rate(texts, "character")}


def _error_rate(pairs: Sequence[tuple[str, str]], unit: Unit) -> Metric:
    return error_rate([reference for reference, _ in pairs], [guess for _, guess in pairs], unit)


def transcription_errors(prediction: Prediction, normalization: str) -> tuple[int, int]:
    """Errors and reference length of one transcript: words, or characters in Chinese and Japanese."""
    reference, guess = _normalized_pair(prediction, normalization)
    unit = "character" if prediction.text_language in CHARACTER_LANGUAGES else "word"
    errors, lengths = edit_counts([reference], [guess], unit)
    return int(errors[0]), int(lengths[0])


def _normalized_pair(prediction: Prediction, normalization: str) -> tuple[str, str]:
    language = prediction.text_language
    reference, guess = (
        normalize(text, normalization, language) for text in (prediction.references[0], prediction.text)
    )
    if language in CHARACTER_LANGUAGES:
        return "".join(reference.split()), "".join(guess.split())
    return reference, guess


def score_translations(predictions: Sequence[Prediction], normalization: str) -> Scores:
    """BLEU and chrF. One BLEU needs one target language, since its tokenizer depends on it."""
    languages = {prediction.text_language for prediction in predictions}
    references = [[normalize(text, normalization) for text in item.references] for item in predictions]
    guesses = [normalize(strip_tags(item.text), normalization) for item in predictions]
    if len(languages) == 1:
        score = bleu(references, guesses, *languages)
    else:
        score = Metric.not_computed("there are several target languages; see the figures by source")
    return {"bleu": score, "chrf": chrf(references, guesses)}


def score_word_times(predictions: Sequence[Prediction], normalization: str) -> Scores:
    """Shift of word times, and the word error rate of the text without times."""
    references, guesses = ([item.references[0] for item in predictions], [item.text for item in predictions])
    return time_metrics(references, guesses) | score_transcripts(predictions, normalization)


def score_captions(predictions: Sequence[Prediction], normalization: str) -> Scores:
    """Caption metrics of the COCO tools, which have their own normalisation, and chrF."""
    return caption_metrics([item.references for item in predictions], [strip_tags(p.text) for p in predictions])


def score_labels(predictions: Sequence[Prediction], normalization: str) -> Scores:
    """Accuracy of closed-set answers: as whole strings, and by the one label that the answer names."""
    labels = {normalize(text, normalization) for item in predictions for text in item.references}
    exact, named = [], []
    for item in predictions:
        right = {normalize(text, normalization) for text in item.references}
        guess = normalize(item.text, normalization)
        exact.append(guess in right)
        named.append(bool(found := named_labels(guess, labels)) and found <= right)
    return {
        "accuracy": accuracy(exact, "the whole answer equals the reference"),
        "named_accuracy": accuracy(named, "the answer names the right label and no other"),
        "declined": accuracy([bool(DECLINING.search(item.text)) for item in predictions]),
    }


def named_labels(text: str, labels: set[str]) -> set[str]:
    """The labels that `text` contains as whole words, the longest first: "hot dog" doesn't name "dog"."""
    rest, found = f" {' '.join(text.split())} ", set()
    for name in sorted(labels, key=len, reverse=True):
        if name and f" {name} " in rest:
            found.add(name)
            rest = rest.replace(f" {name} ", " | ")
    return found


def score_short_answers(predictions: Sequence[Prediction], normalization: str) -> Scores:
    """Accuracy of short answers, over all questions and over those answered by yes or no (ClothoAQA).

    Several references are several right answers. "No, it isn't" is wrong as a string but right by its first word, so
    both are counted.
    """

    def is_right(item: Prediction) -> bool:
        return normalize(item.text, normalization) in {normalize(r, normalization) for r in item.references}

    def first_word(text: str) -> str:
        return (normalize(text, "lower_no_punctuation").split() or [""])[0]

    binary = [item for item in predictions if item.references[0].strip().lower() in ("yes", "no")]
    starts = [first_word(item.text) in {first_word(r) for r in item.references} for item in binary]
    return {
        "accuracy": accuracy([is_right(item) for item in predictions], "the whole answer equals a reference"),
        "binary_accuracy": accuracy([is_right(item) for item in binary], f"{len(binary)} yes/no questions"),
        "binary_first_word_accuracy": accuracy(starts, "only the answer's first word counts"),
    }


def score_notes(predictions: Sequence[Prediction], normalization: str) -> Scores:
    """Scores of notes in the paper's tag format."""
    return note_metrics(
        [parse_note(item.references[0]) for item in predictions], [parse_note(item.text) for item in predictions]
    )


def score_open_answers(predictions: Sequence[Prediction], normalization: str) -> Scores:
    """How often an answer contains its reference, chrF, and whether the model declines exactly where it should.

    Where the reference declines to answer ("There is no speech in this audio."), any declining answer is right. Of
    those questions, "declined" is the share that was declined; "false_refusals" is that of all other questions.
    """
    right, declined, refused = [], [], []
    for item in predictions:
        guess = f" {normalize(item.text, normalization)} "
        contained = any(f" {normalize(text, normalization)} " in guess for text in item.references)
        declines = bool(DECLINING.search(item.text))
        if DECLINING.search(item.references[0]):
            declined.append(declines)
        else:
            refused.append(declines)
        right.append(contained or (declines and bool(DECLINING.search(item.references[0]))))
    return {
        "contains_reference": accuracy(right, "the reference stands in the answer as whole words"),
        "chrf": chrf([item.references for item in predictions], [item.text for item in predictions]),
        "declined": accuracy(declined, f"of {len(declined)} questions that can't be answered"),
        "false_refusals": accuracy(refused, f"of {len(refused)} questions that can be answered"),
    }
