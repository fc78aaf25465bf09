"""Baselines that don't use the audio: what can be scored without listening."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from ..evaluation.predictions import Prediction
from ..evaluation.time_metrics import parse_timed_words, words_to_text
from ..prompts.tags import SILENCE


def most_frequent(predictions: Sequence[Prediction]) -> list[Prediction]:
    """The most frequent reference as the answer to everything."""
    [(most_common, _)] = Counter(prediction.references[0] for prediction in predictions).most_common(1)
    return [replace(prediction, prediction=most_common) for prediction in predictions]


def evenly_spaced(predictions: Sequence[Prediction]) -> list[Prediction]:
    """The right words of each sample, spread evenly over its audio, so that only the timing is scored."""
    return [replace(item, prediction=_spread_evenly(item)) for item in predictions]


def _spread_evenly(prediction: Prediction) -> str:
    reference = parse_timed_words(prediction.references[0]) or []
    texts = [timed.word for timed in reference if timed.word != SILENCE]
    step = prediction.seconds / max(len(texts), 1)
    return words_to_text([(number * step, (number + 1) * step, text) for number, text in enumerate(texts)])
