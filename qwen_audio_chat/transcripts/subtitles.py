"""Subtitles: words or sentences with times, in seconds, as SubRip and WebVTT files."""

import re
from collections.abc import Iterable
from dataclasses import replace

from ..prompts.tags import TimedWord

MAX_CUE_SECONDS = 5.0
MAX_CUE_CHARACTERS = 42  # one line, as broadcasters set it
MAX_PAUSE_SECONDS = 0.8  # a longer silence ends a cue


def shifted(words: Iterable[TimedWord], seconds: float) -> list[TimedWord]:
    """The words shifted by some seconds: from the clock of a piece to that of the whole audio."""
    return [replace(word, start=word.start + seconds, end=word.end + seconds) for word in words]


def join(left: str, right: str) -> str:
    """Two words as one text; Chinese and Japanese are set without a space."""
    return left + right if re.search(r"[\u3040-\u30ff\u3400-\u9fff]$", left) else f"{left} {right}"


def cues(words: Iterable[TimedWord]) -> list[TimedWord]:
    """Words joined to cues of one line each."""
    joined: list[TimedWord] = []
    for word in words:
        if joined:
            cue = joined[-1]
            text = join(cue.word, word.word)
            fits = len(text) <= MAX_CUE_CHARACTERS and word.end - cue.start <= MAX_CUE_SECONDS
            if fits and word.start - cue.end <= MAX_PAUSE_SECONDS:
                joined[-1] = TimedWord(cue.start, word.end, text)
                continue
        joined.append(word)
    return joined


def to_srt(lines: Iterable[TimedWord]) -> str:
    """A SubRip file with one cue per line."""
    return "".join(
        f"{number}\n{_clock(line.start, ',')} --> {_clock(line.end, ',')}\n{line.word}\n\n"
        for number, line in enumerate(lines, start=1)
    )


def to_vtt(lines: Iterable[TimedWord]) -> str:
    """A WebVTT file with one cue per line; `<` and `&` are escaped, as the format demands."""
    escape = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
    body = "".join(
        f"{_clock(line.start, '.')} --> {_clock(line.end, '.')}\n{line.word.translate(escape)}\n\n" for line in lines
    )
    return f"WEBVTT\n\n{body}"


def _clock(seconds: float, point: str) -> str:
    """Seconds as `HH:MM:SS` with milliseconds."""
    minutes, milliseconds = divmod(round(seconds * 1000), 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{milliseconds // 1000:02}{point}{milliseconds % 1000:03}"
