"""Transcripts of audio of any length: a segment per piece of at most 30 s, and subtitle files."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from .audio import SAMPLE_RATE, load_audio, split_audio
from .chatml import Conversation
from .tags import strip_tags

QUESTION = "What does the person say?"


@dataclass
class Segment:
    """What is said from `start` to `end`, in seconds."""

    start: float
    end: float
    text: str


def transcribe(chat, source: Any) -> Iterator[Segment]:
    """Transcribe an audio (anything that `audio.load_audio` takes) piece by piece, each asked for by itself.

    Raises:
        audio.AudioError: the audio can't be used.
    """
    start = 0.0
    for piece in split_audio(load_audio(source)):
        reply = chat.stream(Conversation().ask(QUESTION, [piece])).finish()
        end = start + len(piece) / SAMPLE_RATE
        yield Segment(round(start, 3), round(end, 3), strip_tags(reply.text))
        start = end


def to_srt(segments: Iterable[Segment]) -> str:
    """Segments as a SubRip file."""
    blocks = [
        f"{number}\n{_clock(segment.start)} --> {_clock(segment.end)}\n{segment.text}\n"
        for number, segment in enumerate(segments, start=1)
    ]
    return "\n".join(blocks)


def _clock(seconds: float) -> str:
    """Hours, minutes, seconds and milliseconds as SubRip writes them: 01:02:03,456."""
    minutes, milliseconds = divmod(round(seconds * 1000), 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{milliseconds // 1000:02},{milliseconds % 1000:03}"
