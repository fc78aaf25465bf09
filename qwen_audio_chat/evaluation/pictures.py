"""Pictures of a report: confused labels, and how errors depend on the length of the audio."""

import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .normalization import normalize
from .predictions import Prediction
from .scoring import named_labels, score_labels, score_transcripts, score_word_times, transcription_errors
from .tasks import Task

MAX_LABELS = 30
OTHER_LABEL = "(other)"


def draw_pictures(task: Task, predictions: Sequence[Prediction], normalization: str, output: Path) -> list[Path]:
    """Draw what fits the task into PNG files of a folder and return their paths."""
    answered = [prediction for prediction in predictions if not prediction.error]
    if not answered:
        return []
    if task.score in (score_transcripts, score_word_times):
        return [_error_by_length(answered, normalization, output / "error_by_length.png")]
    if task.score is score_labels:
        return [_confusion_matrix(answered, normalization, output / "confusion_matrix.png")]
    return []


def _figure(**options: Any) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # optional; unlike pyplot it needs no display and no global state

    figure = Figure(layout="constrained", dpi=120, **options)
    return figure, figure.subplots()


def _error_by_length(predictions: Sequence[Prediction], normalization: str, path: Path) -> Path:
    """Error rate of five equally filled bins of audio length, with the number of samples in each."""
    seconds = np.array([prediction.seconds for prediction in predictions])
    counts = np.array([transcription_errors(prediction, normalization) for prediction in predictions])
    bins = [chunk for chunk in np.array_split(np.argsort(seconds, kind="stable"), 5) if len(chunk)]
    rates = [counts[chunk, 0].sum() / max(counts[chunk, 1].sum(), 1) for chunk in bins]
    figure, axes = _figure(figsize=(6, 3.5))
    names = [f"{seconds[chunk].min():.1f} to {seconds[chunk].max():.1f} s\nclips: {len(chunk)}" for chunk in bins]
    axes.bar(range(len(bins)), rates)
    axes.set_xticks(range(len(bins)), names, fontsize=8)
    axes.set_ylabel("error rate")
    figure.savefig(path)
    return path


def _confusion_matrix(predictions: Sequence[Prediction], normalization: str, path: Path) -> Path:
    """References in rows, answers in columns; an answer that names no label, or several, is "other"."""
    from sklearn.metrics import ConfusionMatrixDisplay  # optional

    def norm(text: str) -> str:
        return normalize(text, normalization)

    truth = [norm(prediction.references[0]) for prediction in predictions]
    common = [name for name, _ in Counter(truth).most_common(MAX_LABELS)]
    guesses = [_only(named_labels(norm(prediction.text), set(truth))) for prediction in predictions]
    names = sorted(common) + [OTHER_LABEL]
    shown = [textwrap.shorten(name, 40, placeholder=" ...") for name in names]
    figure, axes = _figure(figsize=(4 + 0.35 * len(names),) * 2)
    ConfusionMatrixDisplay.from_predictions(
        *([name if name in common else OTHER_LABEL for name in side] for side in (truth, guesses)),
        labels=names,
        display_labels=shown,
        ax=axes,
        xticks_rotation="vertical",
        colorbar=False,
    )
    figure.savefig(path)
    return path


def _only(labels: set[str]) -> str:
    return next(iter(labels)) if len(labels) == 1 else OTHER_LABEL
