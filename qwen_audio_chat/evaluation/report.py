"""From predictions to a summary that people (Markdown, pictures) and programs (JSON) can read."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .metrics import NOT_COMPUTED, Metric
from .normalization import DESCRIPTIONS, NORMALIZERS
from .pictures import draw_pictures
from .predictions import Prediction
from .published import published_for
from .tasks import TASKS, Task

SUMMARY_FILE, MARKDOWN_FILE = "summary.json", "summary.md"
NORMALIZED_TASKS = ("asr",)
"""Tasks whose result is shown under every normalisation, since published figures differ in it."""


@dataclass(frozen=True)
class Report:
    """The scores of one run.

    Attributes:
        identity: model, task, prompt and so on, as the runner recorded them.
        normalization: name of the text normalisation behind `metrics`.
        predictions: of all samples, including broken ones.
        metrics: over all samples that aren't broken.
        by_source: the same for each data source, where there are several.
        by_normalization: the headline metric under every normalisation.
    """

    identity: dict[str, Any]
    normalization: str
    predictions: Sequence[Prediction]
    metrics: dict[str, Metric]
    by_source: dict[str, dict[str, Metric]]
    by_normalization: dict[str, Metric]

    @property
    def task(self) -> Task:
        """The task of the run."""
        return TASKS[self.identity["task"]]

    @property
    def broken(self) -> list[Prediction]:
        """Samples that couldn't be asked; they count in no metric."""
        return [prediction for prediction in self.predictions if prediction.error]

    def result(self) -> dict[str, Any]:
        """The metrics as one flat JSON object, with task, normalisation and counts."""
        return plain_values(self.metrics) | {
            "task": self.task.name,
            "normalization": self.normalization,
            "samples": len(self.predictions),
            "broken": len(self.broken),
        }

    def summary(self) -> dict[str, Any]:
        """Everything except the predictions, for summary.json."""
        return {
            **self.identity,
            "normalization": self.normalization,
            "broken": len(self.broken),
            "notices": sum(prediction.notice is not None for prediction in self.predictions),
            "metrics": plain_values(self.metrics),
            "intervals_95": {name: metric.interval for name, metric in self.metrics.items() if metric.interval},
            "notes": {name: metric.note for name, metric in self.metrics.items() if metric.note},
            "by_source": {source: plain_values(metrics) for source, metrics in self.by_source.items()},
            "by_normalization": plain_values(self.by_normalization),
            "published": [
                {"dataset": dataset, "metric": metric, "paper": paper, "ours": ours}
                for dataset, metric, paper, ours, _ in self.comparison()
            ],
        }

    def comparison(self) -> list[tuple[str, str, float, float | str, str | None]]:
        """Rows of (data set, metric, the paper's figure, ours, best baseline) for the sources that are in the paper."""
        groups = self.by_source or {self.predictions[0].source: self.metrics}
        return [
            (row.dataset, row.metric, row.value, plain_values(metrics).get(row.metric, NOT_COMPUTED), row.baseline)
            for source, metrics in groups.items()
            for row in published_for(self.task.name, source)
        ]


def score(predictions: Sequence[Prediction], identity: dict[str, Any], normalization: str) -> Report:
    """Compute all metrics of a run.

    Args:
        predictions: of all samples, including broken ones.
        identity: as the runner recorded it.
        normalization: name of a text normalisation.
    """
    task = TASKS[identity["task"]]
    answered = [prediction for prediction in predictions if not prediction.error]
    if not answered:
        missing = Metric.not_computed("all samples are broken")
        return Report(identity, normalization, predictions, dict.fromkeys(task.headline, missing), {}, {})
    sources = sorted({prediction.source for prediction in answered})
    by_source = {
        source: task.score([item for item in answered if item.source == source], normalization)
        for source in (sources if len(sources) > 1 else ())
    }
    metrics = task.score(answered, normalization)
    by_normalization = {}
    if task.name in NORMALIZED_TASKS:
        headline = next(name for name in task.headline if name in metrics)
        by_normalization = {name: task.score(answered, name)[headline] for name in NORMALIZERS}
    return Report(identity, normalization, predictions, metrics, by_source, by_normalization)


def plain_values(metrics: dict[str, Metric]) -> dict[str, float | str]:
    """Metric names to rounded values, or to "not computed"."""
    return {name: NOT_COMPUTED if metric.value is None else round(metric.value, 5) for name, metric in metrics.items()}


def write_report(report: Report, output: Path) -> None:
    """Write summary.json, summary.md and the pictures into a folder."""
    pictures = draw_pictures(report.task, report.predictions, report.normalization, output)
    (output / SUMMARY_FILE).write_text(
        json.dumps(report.summary(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    (output / MARKDOWN_FILE).write_text(markdown(report, pictures), encoding="utf-8")


def markdown(report: Report, pictures: Sequence[Path] = ()) -> str:
    """The report as Markdown."""
    identity, normalization = report.identity, report.normalization
    lines = [
        f"# {report.task.title}: {identity['model']}",
        "",
        f"{len(report.predictions)} samples, asked with {identity['prompt']}; text normalisation "
        f"`{normalization}`: {DESCRIPTIONS[normalization]}. Intervals are 95 % bootstrap intervals over samples.",
        "",
        *_table(
            ["metric", "value (95 % interval)", "note"],
            [[name, str(metric), metric.note] for name, metric in report.metrics.items()],
        ),
    ]
    if comparison := report.comparison():
        lines += ["## Next to the paper", ""]
        rows = [[dataset, name, paper, ours, best or ""] for dataset, name, paper, ours, best in comparison]
        lines += _table(["data set", "metric", "Qwen-Audio (paper)", "this run", "best other (paper)"], rows)
    if report.by_source:
        lines += ["## By source", ""]
        names = list(report.metrics)
        rows = [[source, *(str(scores.get(name, "")) for name in names)] for source, scores in report.by_source.items()]
        lines += _table(["source", *names], rows)
    if report.by_normalization:
        lines += ["## The same predictions under other text normalisations", ""]
        rows = [[name, str(metric), DESCRIPTIONS[name]] for name, metric in report.by_normalization.items()]
        lines += _table(["normalisation", "value", "meaning"], rows)
    if report.broken:
        lines += [f"## Broken samples ({len(report.broken)}, in no metric)", ""]
        lines += _table(["audio", "reason"], [[item.audio, item.error] for item in report.broken])
    if notices := [item for item in report.predictions if item.notice]:
        lines += [f"## Long audio ({len(notices)} samples)", ""]
        lines += _table(["audio", "notice"], [[item.audio, item.notice] for item in notices])
    lines += [line for picture in pictures for line in (f"![{picture.stem.replace('_', ' ')}]({picture.name})", "")]
    return "\n".join(lines)


def _table(header: Sequence[Any], rows: Sequence[Sequence[Any]]) -> list[str]:
    def line(cells: Sequence[Any]) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    return [line(header), line(["---"] * len(header)), *map(line, rows), ""]
