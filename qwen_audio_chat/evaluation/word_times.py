"""Word time stamps: the paper's output format and its average alignment shift (AAS)."""

import re
from dataclasses import dataclass

import numpy as np
from rapidfuzz.distance import Levenshtein

from ..prompts.tags import SILENCE, TimedWord, write_words

_TIME = re.compile(r"<\|(\d{1,2}\.\d+)\|>")
_TAG = re.compile(r"<\|(?!sil\|>)[^|<>]*\|>")


def parse_timed_words(text: str) -> list[TimedWord] | None:
    """Read `<|0.00|><|sil|><|0.54|>word<|0.86|>...`: every time ends one word and starts the next.

    Unlike `tags.parse_words`, silences are words, too, since the paper's measure counts them. The first time is part
    of the prompt, so an answer may leave it out; text after the last time was cut off and doesn't count.
    Returns None where there is no word with times.
    """
    before, *rest = _TIME.split(text)
    if _TAG.sub("", before).strip():
        before, rest = "", ["0.00", before, *rest]
    times, words = [float(time) for time in rest[::2]], [_TAG.sub("", word).strip() for word in rest[1::2]]
    timed = zip(times, times[1:], words, strict=False)
    return [TimedWord(start, end, word) for start, end, word in timed if word] or None


@dataclass(frozen=True)
class AlignmentShift:
    """Absolute time differences of the words that both sides have.

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
    pairs = [
        (reference[opcode.src_start + offset], prediction[opcode.dest_start + offset])
        for opcode in opcodes
        if opcode.tag == "equal"
        for offset in range(opcode.src_end - opcode.src_start)
    ]
    return AlignmentShift(
        starts=np.array([abs(ours.start - theirs.start) for theirs, ours in pairs]),
        ends=np.array([abs(ours.end - theirs.end) for theirs, ours in pairs]),
        silent=np.array([theirs.word == SILENCE for theirs, _ in pairs], dtype=bool),
    )


def words_to_text(words: list[tuple[float, float, str]]) -> str:
    """Write `[start, end, word]` triples (seconds) in the paper's format, with `<|sil|>` in the gaps."""
    return "<|0.00|>" + write_words(TimedWord(*word) for word in words)
