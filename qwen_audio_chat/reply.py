"""`Reply`: an answer that is still being made."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from .prompts.messages import Progress


@dataclass
class ReplyStats:
    """Figures of one answer; times in seconds."""

    prompt_tokens: int = 0
    reused_tokens: int = 0
    context_limit: int = 0
    ttft_s: float | None = None  # time to first token
    tokens_per_s: float | None = None


class Reply:
    """An answer under way: iterate over it for pieces of text. The work is done, and the attributes grow, as you read.

    Args:
        context_limit: tokens that the model holds, for the figures.
        produce: given the reply, yields the pieces of text and fills in the attributes.
    """

    def __init__(self, context_limit: int, produce: "Callable[[Reply], Iterator[str]]"):
        self.text = ""
        self.token_ids: list[int] = []
        self.finish_reason: str | None = None  # "stop", "length", "cancelled" or "repetition"
        self.stats = ReplyStats(context_limit=context_limit)
        self.progress: Progress | None = None  # where the audio is answered in parts
        self.dropped_turns = 0
        self.notices: list[str] = []
        self._pieces = produce(self)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        return next(self._pieces)

    def finish(self) -> "Reply":
        """Read to the end; returns itself."""
        for _ in self:
            pass
        return self

    def close(self) -> None:
        """Stop the work where it stands, and free what it holds; what was read stays. To be called by the reader."""
        close = getattr(self._pieces, "close", None)
        if close is not None:
            close()

    def snapshot(self) -> dict[str, Any]:
        """All attributes, to send to another process, where `restore` takes them."""
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Take over the attributes of a reply in another process."""
        vars(self).update(snapshot)
