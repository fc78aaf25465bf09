"""Times in an answer: which words or spans they name, of which audio, and subtitles made of them."""

import re
from collections.abc import Iterable, Sequence

from ..tags import TimedWord, parse_words, show_times, time_spans

MIN_WORDS = 2  # fewer words between times are a grounding answer, not a transcript
CUE_SECONDS = 5.0  # a subtitle lasts at most so long
CUE_CHARACTERS = 42  # and has at most so many characters, one line as broadcasters set it
PAUSE_SECONDS = 0.8  # a longer silence ends a subtitle


def timed_words(text: str) -> list[TimedWord]:
    """Words with times where the answer is a transcript with times; otherwise none."""
    words = parse_words(text)
    spoken = [word for word in words if len(word.word.split()) <= 3 and word.end > word.start]
    return spoken if len(spoken) >= MIN_WORDS and len(spoken) > len(words) / 2 else []


def spans(text: str) -> list[TimedWord]:
    """Every place an answer names: the words of a transcript, or start and end of what was looked for."""
    return timed_words(text) or [TimedWord(start, end, "") for start, end in time_spans(text)]


def readable(text: str) -> str:
    """An answer to read: a transcript without its times, which are shown apart; other times in plain seconds."""
    if timed_words(text):
        words = ""
        for word in timed_words(text):
            words = _join(words, word.word) if words else word.word
        return words
    return show_times(text)


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


def cues(words: Iterable[TimedWord]) -> list[TimedWord]:
    """Words joined to subtitles of one line each."""
    joined: list[TimedWord] = []
    for word in words:
        last = joined[-1] if joined else None
        text = _join(last.word, word.word) if last else word.word
        fits = last and len(text) <= CUE_CHARACTERS and word.end - last.start <= CUE_SECONDS
        if fits and word.start - last.end <= PAUSE_SECONDS:
            joined[-1] = TimedWord(last.start, word.end, text)
        else:
            joined.append(word)
    return joined


def _join(left: str, right: str) -> str:
    """Two words as one text; Chinese and Japanese are set without a space."""
    return left + right if re.search(r"[\u3040-\u30ff\u3400-\u9fff]$", left) else f"{left} {right}"


def to_srt(words: Iterable[TimedWord]) -> str:
    """Words as a SubRip file."""
    return "".join(
        f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{cue.word}\n\n"
        for number, cue in enumerate(cues(words), start=1)
    )


def to_vtt(words: Iterable[TimedWord]) -> str:
    """Words as a WebVTT file; `<` and `&` are escaped, as the format demands."""
    escape = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
    body = "".join(
        f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{cue.word.translate(escape)}\n\n" for cue in cues(words)
    )
    return f"WEBVTT\n\n{body}"


def _clock(seconds: float, point: str) -> str:
    """Seconds as `HH:MM:SS` with milliseconds."""
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{milliseconds // 1000:02}{point}{milliseconds % 1000:03}"
