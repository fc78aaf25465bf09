"""Times in an answer: the words or spans that they mark, on the clock of the whole audio.

An audio over 30 s is heard in pieces, and the model's times restart in each. `starts` are the seconds at which the
pieces begin.
"""

from collections.abc import Sequence

from ..prompts.tags import TIME, TIMES_BEGIN, TimedWord, parse_words, show_times, time_spans
from .subtitles import join, shifted

MIN_WORDS = 2  # fewer words between times are a grounding answer, not a transcript


def timed_words(text: str, starts: Sequence[float] = (0.0,)) -> list[TimedWord]:
    """The words of a transcript with times; none if the answer is something else."""
    words = [word for start, part in _parts(text, starts) for word in shifted(parse_words(part), start)]
    spoken = [word for word in words if len(word.word.split()) <= 3 and word.end > word.start]
    fewest = 1 if text.startswith(TIMES_BEGIN) else MIN_WORDS
    return spoken if len(spoken) >= fewest and len(spoken) > len(words) / 2 else []


def spans(text: str, starts: Sequence[float] = (0.0,)) -> list[TimedWord]:
    """Every place that an answer marks: the words of a transcript, or start and end of what was looked for."""
    if words := timed_words(text, starts):
        return words
    return [
        TimedWord(start + begin, start + end, "")
        for start, part in _parts(text, starts)
        for begin, end in time_spans(part)
    ]


def readable(text: str, starts: Sequence[float] = (0.0,)) -> str:
    """An answer for a reader: a transcript without its times, which are shown separately; other times in seconds."""
    if words := timed_words(text, starts):
        line = words[0].word
        for word in words[1:]:
            line = join(line, word.word)
        return line
    return show_times(text)


def _parts(text: str, starts: Sequence[float]) -> list[tuple[float, str]]:
    """(start of a piece, what the answer says about it) for each piece.

    The times of a piece count up from 0; where they fall, the next piece begins. An unfinished transcript covers the
    first pieces. Any other answer that doesn't go through all pieces could be about any of them: it has no parts.
    """
    cuts, last = [0], None
    for match in TIME.finditer(text):
        time = float(match.group(1))
        if last is not None and (time < last or time == 0):
            cuts.append(match.start())
        last = time
    if len(starts) == 1:
        return [(0.0, text)]
    if len(cuts) != len(starts) and not (text.startswith(TIMES_BEGIN) and len(cuts) < len(starts)):
        return []
    ends = [*cuts[1:], len(text)]
    return [(start, text[a:b]) for start, a, b in zip(starts[: len(cuts)], cuts, ends, strict=True)]
