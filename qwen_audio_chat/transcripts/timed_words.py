"""Times in an answer: which words or spans they name, of which audio.

An audio over 30 s is heard in pieces, and the model's times begin anew in each. `starts` are the seconds at which the
pieces begin, so that everything here is on the clock of the whole audio.
"""

import re
from collections.abc import Sequence

from ..prompts.tags import TimedWord, parse_words, show_times, time_spans
from .subtitles import join, shifted

BEGINNING = "<|0.00|>"  # of each piece of a transcript
MIN_WORDS = 2  # fewer words between times are a grounding answer, not a transcript
_TIME = re.compile(r"<\|(\d{1,2}\.\d{2})\|>")


def timed_words(text: str, starts: Sequence[float] = (0.0,)) -> list[TimedWord]:
    """Words with times where the answer is a transcript with times; otherwise none."""
    words = [word for start, part in _parts(text, starts) for word in shifted(parse_words(part), start)]
    spoken = [word for word in words if len(word.word.split()) <= 3 and word.end > word.start]
    fewest = 1 if text.startswith(BEGINNING) else MIN_WORDS
    return spoken if len(spoken) >= fewest and len(spoken) > len(words) / 2 else []


def spans(text: str, starts: Sequence[float] = (0.0,)) -> list[TimedWord]:
    """Every place an answer names: the words of a transcript, or start and end of what was looked for."""
    if words := timed_words(text, starts):
        return words
    return [
        TimedWord(start + begin, start + end, "")
        for start, part in _parts(text, starts)
        for begin, end in time_spans(part)
    ]


def readable(text: str, starts: Sequence[float] = (0.0,)) -> str:
    """An answer to read: a transcript without its times, which are shown apart; other times in plain seconds."""
    if words := timed_words(text, starts):
        line = words[0].word
        for word in words[1:]:
            line = join(line, word.word)
        return line
    return show_times(text)


def _parts(text: str, starts: Sequence[float]) -> list[tuple[float, str]]:
    """(start of a piece, what the answer says of it) for each piece.

    The times of a piece count up from 0; where they fall, the next piece begins. A transcript on its way, or one that
    was stopped, has the first pieces. Any other answer that doesn't go through all pieces leaves open which of them it
    means: then there are no parts.
    """
    cuts, last = [0], None
    for match in _TIME.finditer(text):
        time = float(match.group(1))
        if last is not None and (time < last or time == 0):
            cuts.append(match.start())
        last = time
    if len(starts) == 1:
        return [(0.0, text)]
    if len(cuts) != len(starts) and not (text.startswith(BEGINNING) and len(cuts) < len(starts)):
        return []
    ends = [*cuts[1:], len(text)]
    return [(start, text[a:b]) for start, a, b in zip(starts[: len(cuts)], cuts, ends, strict=True)]


def meant_audio(question: str, numbers: Sequence[int], latest: int) -> int | None:
    """The number of the audio a question is about.

    Args:
        question: the user's text.
        numbers: numbers of the audios in the same message.
        latest: number of the last audio so far, 0 for none.
    """
    named = [int(number) for number in re.findall(r"(?:audio|音频)\s*(\d{1,3})", question, re.IGNORECASE)]
    for number in named:
        if 1 <= number <= latest:
            return number
    return numbers[0] if len(numbers) == 1 else (latest or None)
