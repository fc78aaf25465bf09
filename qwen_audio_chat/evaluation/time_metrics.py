"""Scores of word times: the paper's output format and its average alignment shift (AAS)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from rapidfuzz.distance import Levenshtein

from ..prompts.tags import SILENCE, TAG, TIME, TIMES_BEGIN, TimedWord, write_words
from .metrics import Metric, accuracy, bootstrap, ratio


def parse_timed_words(text: str) -> list[TimedWord] | None:
    """Read `<|0.00|><|sil|><|0.54|>word<|0.86|>...`, in which every time ends one word and starts the next.

    Unlike `tags.parse_words`, silences are words, since the paper's measure counts them. The first time is part of the
    prompt, so a model may leave it out; text after the last time was cut off and doesn't count.

    Returns:
        The words, or None where there is no word with times.
    """
    before, *rest = TIME.split(text)  # text, time, text, time, ..., text
    if _word(before):
        rest = ["0.00", before, *rest]
    times, words = [float(time) for time in rest[::2]], map(_word, rest[1::2])
    timed = zip(times, times[1:], words, strict=False)
    return [TimedWord(start, end, word) for start, end, word in timed if word] or None


def _word(text: str) -> str:
    """What stands between two times, without any tag but that of silence."""
    return TAG.sub(lambda tag: SILENCE if tag[0] == SILENCE else "", text).strip()


@dataclass(frozen=True)
class AlignmentShift:
    """Absolute time differences of the words that reference and prediction have in common.

    Attributes:
        starts, ends: float arrays [matched words], seconds.
        silent: bool array [matched words], true for `<|sil|>`.
    """

    starts: np.ndarray
    ends: np.ndarray
    silent: np.ndarray


def alignment_shift(reference: list[TimedWord], prediction: list[TimedWord]) -> AlignmentShift:
    """Compare the times of equal words, found by edit-distance alignment (FunASR, arXiv 2305.11013)."""
    opcodes = Levenshtein.opcodes([word.word for word in reference], [word.word for word in prediction])
    matches = [
        (reference[opcode.src_start + offset], prediction[opcode.dest_start + offset])
        for opcode in opcodes
        if opcode.tag == "equal"
        for offset in range(opcode.src_end - opcode.src_start)
    ]
    return AlignmentShift(
        starts=np.array([abs(guess.start - truth.start) for truth, guess in matches]),
        ends=np.array([abs(guess.end - truth.end) for truth, guess in matches]),
        silent=np.array([truth.word == SILENCE for truth, _ in matches], dtype=bool),
    )


def words_to_text(words: Iterable[tuple[float, float, str]]) -> str:
    """Write (start, end, word) triples (seconds) in the paper's format, with `<|sil|>` in the gaps."""
    return TIMES_BEGIN + write_words(TimedWord(*word) for word in words)


def time_metrics(references: Sequence[str], predictions: Sequence[str]) -> dict[str, Metric]:
    """Scores of word times in the paper's format.

    Returns:
        "aas_ms": mean over the equal words (including silences) of |start difference| + |end difference|, as in the
        paper; "median_shift_ms": median over single word boundaries, without silences; "parsed": share of predictions
        that have the format.
    """
    pairs = [
        (parse_timed_words(reference), parse_timed_words(guess))
        for reference, guess in zip(references, predictions, strict=True)
    ]
    parsed = accuracy([guess is not None for _, guess in pairs])
    shifts = [alignment_shift(truth, guess) for truth, guess in pairs if truth and guess]
    matched = [shift for shift in shifts if len(shift.starts)]
    spoken = [shift for shift in matched if not shift.silent.all()]
    note = f"over {sum(len(shift.starts) for shift in matched)} equal words of {len(matched)} samples"
    missing = Metric.not_computed("no prediction has a word in common with its reference")
    if not matched:
        return {"aas_ms": missing, "median_shift_ms": missing, "parsed": parsed}
    sums = np.array([1000 * (shift.starts + shift.ends).sum() for shift in matched])
    aas = ratio(sums, np.array([len(shift.starts) for shift in matched]), note)
    if not spoken:
        return {"aas_ms": aas, "median_shift_ms": missing, "parsed": parsed}
    edges = np.empty(len(spoken), dtype=object)
    for place, shift in enumerate(spoken):
        edges[place] = 1000 * np.concatenate([shift.starts[~shift.silent], shift.ends[~shift.silent]])
    median = bootstrap(lambda samples: np.median(np.concatenate(list(samples))), edges)
    return {"aas_ms": aas, "median_shift_ms": median, "parsed": parsed}
