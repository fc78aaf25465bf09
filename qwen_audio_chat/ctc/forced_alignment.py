"""When each word was said: CTC forced alignment of a transcript with the audio frames.

Where a model spells its frames (`config.ctc_alphabet`), times need no words about time: the best path of connectionist
temporal classification through the transcript's letters (Graves et al., 2006) tells the frame of each.
"""

from collections.abc import Sequence

import numpy as np

from ..prompts.tags import TimedWord

FRAME_S = 0.04
PAUSE_S = 0.24  # a gap up to so long is shared by the words around it, for letters are shorter than their sounds


def ctc_classes(text: str, letters: str) -> list[int]:
    """Classes of a text's letters, 0 being the blank; a hyphen or a line break parts words, other marks are silent."""
    plain = "".join(" " if char in "-–—\n\t" else char for char in text.lower().replace("’", "'"))
    return [1 + letters.index(char) for char in plain if char in letters]


def forced_alignment(log_probs: np.ndarray, classes: Sequence[int]) -> np.ndarray | None:
    """The frame in which each of `classes` is first heard, on the likeliest path through all of them in order.

    Args:
        log_probs: of each frame, [frames, classes], blank first.
        classes: without blanks.

    Returns:
        int [len(classes)], rising; None where the frames are too few for so many letters.
    """
    states = np.zeros(2 * len(classes) + 1, dtype=np.int64)  # a blank before, between and after the letters
    states[1::2] = classes
    may_skip = np.zeros(len(states), dtype=bool)  # over a blank, but never from a letter to the same letter
    may_skip[3::2] = states[3::2] != states[1:-2:2]
    score = np.full(len(states), -np.inf)
    score[:2] = log_probs[0, states[:2]]
    steps = np.zeros((len(log_probs), len(states)), dtype=np.int8)
    for frame in range(1, len(log_probs)):
        ways = np.full((3, len(states)), -np.inf)
        ways[0], ways[1, 1:] = score, score[:-1]
        ways[2, 2:] = np.where(may_skip[2:], score[:-2], -np.inf)
        steps[frame] = ways.argmax(0)
        score = ways.max(0) + log_probs[frame, states]
    state = len(states) - 1 - int(score[-2:].argmax() == 0) if len(states) > 1 else 0
    if not np.isfinite(score[state]):
        return None
    first = np.zeros(len(states), dtype=np.int64)
    for frame in range(len(log_probs) - 1, -1, -1):
        first[state] = frame
        state -= int(steps[frame, state])
    return first[1::2]


def word_times(text: str, log_probs: np.ndarray, letters: str) -> list[TimedWord]:
    """The words of a transcript with their times in seconds, on the grid of the frames.

    Every word takes a frame at least, while there are any; one without letters (a number in digits) takes the frame
    after the word before it.

    Args:
        text: what is said.
        log_probs: of each frame, [frames, 1 + len(letters)], blank first.
        letters: the alphabet of the model, `config.ctc_alphabet`.

    Returns:
        One entry a word; empty where the frames are too few for the text.
    """
    words = text.split()
    spelled = [ctc_classes(word, letters) for word in words]
    space = 1 + letters.index(" ")
    path = forced_alignment(log_probs, [each for classes in spelled for each in (space, *classes)])
    if path is None:
        return []
    spans, place, clock, length = [], 0, 0.0, len(log_probs) * FRAME_S
    for classes in spelled:
        own = path[place + 1 : place + 1 + len(classes)] * FRAME_S
        place += 1 + len(classes)
        start, end = (own[0], own[-1] + FRAME_S) if len(own) else (clock, clock)
        start = max(clock, start)
        spans.append([start, min(length, max(start + FRAME_S, end))])
        clock = spans[-1][1]
    for left, right in zip(spans, spans[1:], strict=False):
        if 0 < right[0] - left[1] <= PAUSE_S:
            left[1] = right[0] = round((left[1] + right[0]) / 2 / FRAME_S) * FRAME_S
    return [TimedWord(round(s, 2), round(e, 2), word) for (s, e), word in zip(spans, words, strict=True)]
