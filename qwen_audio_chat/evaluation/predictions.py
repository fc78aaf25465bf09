"""Predictions on disk: JSONL, one line per sample, written immediately, readable after any interruption."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

RESULT_FILE = "predictions.jsonl"
"""All predictions of a finished run, in the order of the samples."""

PARTS_FOLDER = "parts"
"""Holds what each process of a run has written so far."""

IDENTITY_FILE = "run.json"
"""What makes a run what it is: model, task, prompt, data."""


@dataclass(frozen=True)
class Prediction:
    """What a model answered to one sample, with all that scoring needs.

    Attributes:
        index: place of the sample in its data.
        prediction: the answer; None where the sample is broken.
        seconds: length of the audio.
        error: why the sample is broken; None where it isn't.
        notice: what was done to the sample, such as cutting its audio.
        audio: name of the audio in the data.
        references: right answers, one or more.
        source, question: as in `samples.Sample`.
        audio_language, text_language: of what was asked.
    """

    index: int
    audio: str
    references: tuple[str, ...]
    prediction: str | None
    source: str = ""
    question: str | None = None
    audio_language: str = "en"
    text_language: str = "en"
    seconds: float = 0.0
    error: str | None = None
    notice: str | None = None

    @property
    def text(self) -> str:
        """The answer to a sample that isn't broken."""
        assert self.prediction is not None
        return self.prediction

    def to_line(self) -> str:
        """One line of JSONL, its end included."""
        return json.dumps(asdict(self), ensure_ascii=False) + "\n"


class PredictionFile:
    """A JSONL file to append predictions to; each is on disk before the next one is made.

    Half a last line, left by an interruption, gets a line end, so that new lines start cleanly.
    """

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        has_half_line = path.exists() and path.read_bytes()[-1:] not in (b"", b"\n")
        self._file = path.open("a", encoding="utf-8")
        if has_half_line:
            self._file.write("\n")

    def add(self, prediction: Prediction) -> None:
        """Write one prediction and flush it."""
        self._file.write(prediction.to_line())
        self._file.flush()

    def __enter__(self) -> "PredictionFile":
        return self

    def __exit__(self, *_exception) -> None:
        self._file.close()


def read_predictions(path: Path) -> Iterator[Prediction]:
    """Yield the predictions of a file; lines that an interruption cut short are skipped."""
    for line in path.read_bytes().splitlines():
        try:
            row = json.loads(line)
            yield Prediction(**row | {"references": tuple(row["references"])})
        except (ValueError, TypeError, KeyError):
            continue
