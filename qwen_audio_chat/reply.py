"""An answer on its way, and what is known of it."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """How far an audio is heard that is answered in parts: so many to their end, and what was told of them."""

    parts: int = 0
    characters: int = 0
    tokens: int = 0


@dataclass
class ReplyStats:
    """Figures of one answer; times in seconds."""

    prompt_tokens: int = 0
    reused_tokens: int = 0
    context_limit: int = 0
    ttft_s: float | None = None
    tokens_per_s: float | None = None


class Reply:
    """An answer on its way: iterate for pieces of text. What is known of it grows while it is read."""

    def __init__(self, context_limit: int):
        self.text = ""
        self.token_ids: list[int] = []
        self.finish_reason: str | None = None  # "stop", "length", "cancelled" or "repetition"
        self.stats = ReplyStats(context_limit=context_limit)
        self.progress: Progress | None = None  # where the audio is answered in parts
        self.dropped_turns = 0
        self.notices: list[str] = []
        self._pieces: Iterator[str] = iter(())

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        return next(self._pieces)

    def finish(self) -> "Reply":
        """Read to the end; returns itself."""
        for _ in self:
            pass
        return self
