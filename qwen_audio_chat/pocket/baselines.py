"""What can be scored without listening: the floor under every figure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from ..evaluation.predictions import Prediction
from ..evaluation.word_times import parse_timed_words, words_to_text
from ..prompts.tags import SILENCE


def most_frequent(predictions: Sequence[Prediction]) -> list[Prediction]:
    """The most frequent reference as the answer to everything."""
    [(answer, _)] = Counter(prediction.references[0] for prediction in predictions).most_common(1)
    return [replace(prediction, prediction=answer) for prediction in predictions]


def evenly_spaced(predictions: Sequence[Prediction]) -> list[Prediction]:
    """The right words of each sample, spread evenly over its audio: what is left is the timing alone."""
    return [replace(item, prediction=_spread(item)) for item in predictions]


def _spread(prediction: Prediction) -> str:
    timed = parse_timed_words(prediction.references[0]) or []
    words = [word.word for word in timed if word.word != SILENCE]
    step = prediction.seconds / max(len(words), 1)
    return words_to_text([(place * step, (place + 1) * step, word) for place, word in enumerate(words)])
