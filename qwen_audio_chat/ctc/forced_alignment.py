"""When each word was said: CTC forced alignment of a transcript with the audio frames.

A model with a CTC head doesn't have to write times: the most probable path of connectionist temporal classification
through the transcript's characters (Graves et al., 2006) gives the frame of each.
"""

from collections.abc import Sequence

import numpy as np

from ..prompts.tags import TimedWord

FRAME_S = 0.04
PAUSE_S = 0.24  # a shorter gap is split between the words around it: CTC peaks are shorter than the sounds


def ctc_classes(text: str, alphabet: str) -> list[int]:
    """CTC classes of a text's characters, 0 being the blank; hyphens and line breaks become spaces, other marks go."""
    plain = "".join(" " if char in "-–—\n\t" else char for char in text.lower().replace("’", "'"))
    return [1 + alphabet.index(char) for char in plain if char in alphabet]


def forced_alignment(log_probs: np.ndarray, classes: Sequence[int]) -> np.ndarray | None:
    """The first frame of each of `classes`, on the most probable path through all of them in order.

    Args:
        log_probs: CTC output, [frames, classes], blank first.
        classes: without blanks.

    Returns:
        int [len(classes)], increasing; None where there are too few frames for so many classes.
    """
    states = np.zeros(2 * len(classes) + 1, dtype=np.int64)  # a blank before, between and after the classes
    states[1::2] = classes
    may_skip = np.zeros(len(states), dtype=bool)  # a blank, but never from one class to the same class
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


def word_times(text: str, log_probs: np.ndarray, alphabet: str) -> list[TimedWord]:
    """The words of a transcript with their times in seconds, on the grid of the frames.

    Every word gets at least one frame while any are left; a word without characters of the alphabet (a number in
    digits) gets the frame after the word before it.

    Args:
        text: what is said.
        log_probs: CTC output, [frames, 1 + len(alphabet)], blank first.
        alphabet: the characters of the CTC head, `config.ctc_alphabet`.

    Returns:
        One entry per word; empty where there are too few frames for the text.
    """
    words = text.split()
    spelled = [ctc_classes(word, alphabet) for word in words]
    space = 1 + alphabet.index(" ")
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
