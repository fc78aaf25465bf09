"""Error rates, BLEU, chrF, accuracy and precision, from the field's libraries, each with a bootstrap interval.

Rates (error rates, accuracies, precision) are fractions; BLEU and chrF are on sacrebleu's scale of 0 to 100.
"""

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Unit = Literal["word", "character"]
RESAMPLES = 1000
NOT_COMPUTED = "not computed"


@dataclass(frozen=True)
class Metric:
    """One figure: its value, its 95 % bootstrap interval over samples, and a note for the reader."""

    value: float | None
    interval: tuple[float, float] | None = None
    note: str = ""

    @classmethod
    def not_computed(cls, reason: str) -> "Metric":
        """A metric that couldn't be computed, which is different from zero."""
        return cls(None, None, reason)

    def __str__(self) -> str:
        if self.value is None:
            return NOT_COMPUTED
        text = f"{self.value:.4g}"
        return f"{text} ({self.interval[0]:.4g} to {self.interval[1]:.4g})" if self.interval else text


def bootstrap(statistic: Callable[..., float], *columns: np.ndarray, note: str = "") -> Metric:
    """Compute `statistic(*columns)` and its percentile bootstrap interval.

    Args:
        statistic: takes as many arrays as there are columns.
        columns: arrays with one entry (or row) per sample; samples are drawn together from all of them.
    """
    size = len(columns[0])
    value = float(statistic(*columns))
    if size < 2:
        return Metric(value, None, note)
    generator = np.random.default_rng(0)
    draws = generator.integers(0, size, (RESAMPLES, size), dtype=np.int32)
    values = [statistic(*(column[draw] for column in columns)) for draw in draws]
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return Metric(value, (float(low), float(high)), note)


def ratio(errors: np.ndarray, totals: np.ndarray, note: str = "") -> Metric:
    """Sum of `errors` over sum of `totals`: the corpus-level rate, in which long samples count for more."""
    if totals.sum() == 0:
        return Metric.not_computed("the references are empty")
    return bootstrap(lambda error, total: error.sum() / max(total.sum(), 1), errors, totals, note=note)


def edit_counts(references: Sequence[str], predictions: Sequence[str], unit: Unit) -> tuple[np.ndarray, np.ndarray]:
    """Errors and reference lengths in words or characters, both [samples]."""
    import jiwer  # optional

    process = {"word": jiwer.process_words, "character": jiwer.process_characters}[unit]
    output = process(list(references), list(predictions))
    errors = [
        sum(
            max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)
            for chunk in chunks
            if chunk.type != "equal"
        )
        for chunks in output.alignments
    ]
    return np.array(errors), np.array([len(reference) for reference in output.references])


def error_rate(references: Sequence[str], predictions: Sequence[str], unit: Unit = "word") -> Metric:
    """Word or character error rate over all samples (Levenshtein errors / reference length; may exceed 1)."""
    return ratio(*edit_counts(references, predictions, unit))


def bleu(references: Sequence[Sequence[str]], predictions: Sequence[str], language: str = "en") -> Metric:
    """Corpus BLEU, tokenised as CoVoST2's scripts do: characters for zh, MeCab for ja, 13a otherwise.

    Args:
        references: one or more references for each sample.
        predictions: one for each sample.
        language: of both.
    """
    from sacrebleu.metrics.bleu import BLEU  # optional

    tokenizer = {"zh": "zh", "zh_tr": "zh", "ja": "ja-mecab"}.get(language, "13a")
    try:
        return _sacrebleu(BLEU(tokenize=tokenizer), references, predictions)
    except RuntimeError:  # what sacrebleu raises where an optional tokenizer is missing
        return Metric.not_computed('BLEU of Japanese needs MeCab: pip install "sacrebleu[ja]"')


def chrf(references: Sequence[Sequence[str]], predictions: Sequence[str]) -> Metric:
    """Corpus chrF (character 6-grams, beta 2), for any language."""
    from sacrebleu.metrics.chrf import CHRF  # optional

    return _sacrebleu(CHRF(), references, predictions)


def _sacrebleu(metric: Any, references: Sequence[Sequence[str]], predictions: Sequence[str]) -> Metric:
    width = max(len(group) for group in references)
    streams = [[group[place] if place < len(group) else None for group in references] for place in range(width)]
    value = metric.corpus_score(list(predictions), streams).score
    # sacrebleu's own bootstrap holds all resamples in memory at once, and fails where some of them score zero.
    statistics = np.array(metric._extract_corpus_statistics(list(predictions), streams), dtype=float)
    interval = bootstrap(lambda rows: metric._compute_score_from_stats(rows.sum(axis=0)).score, statistics).interval
    return Metric(value, interval, str(metric.get_signature()))


def accuracy(correct: Sequence[bool], note: str = "") -> Metric:
    """Share of samples that are right."""
    if len(correct) == 0:
        return Metric.not_computed("no sample asks for it")
    return bootstrap(np.mean, np.asarray(correct, dtype=float), note=note)


def mean_average_precision(references: Sequence[Set[str]], predictions: Sequence[Set[str]]) -> Metric:
    """Macro average precision of label sets, over the labels that occur in the references."""
    from sklearn.metrics import average_precision_score  # optional

    labels = sorted(set[str]().union(*references))
    if not labels:
        return Metric.not_computed("no reference has a label")
    truth, guess = (
        np.array([[label in row for label in labels] for row in rows]) for rows in (references, predictions)
    )

    def macro(truth: np.ndarray, guess: np.ndarray) -> float:
        present = truth.any(axis=0)  # a resample may miss a rare label, which then has no precision
        if not present.any():
            return float("nan")
        return average_precision_score(truth[:, present], guess[:, present].astype(float), average="macro")

    return bootstrap(macro, truth, guess)
