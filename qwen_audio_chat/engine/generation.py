"""Decoding: tokens from logits, a guard against loops, and text that never splits a character."""

from collections.abc import Callable, Iterator

import torch
from transformers import PreTrainedTokenizerFast

from .cache import KeyValueCache
from .sampling import Sampler


class RepetitionGuard:
    """Detects an answer that loops: its last tokens repeat with a period of at most `MAX_PERIOD`."""

    MAX_PERIOD, MIN_TOKENS, MIN_REPEATS = 64, 40, 4

    def __init__(self):
        # For each period, how many of the last tokens equal the one a period before.
        self.matches = [0] * (self.MAX_PERIOD + 1)
        self.ids: list[int] = []

    def is_looping(self, token: int) -> bool:
        """Whether the answer loops now that this token follows."""
        self.ids.append(token)
        for period in range(1, min(len(self.matches), len(self.ids))):
            self.matches[period] = self.matches[period] + 1 if self.ids[-1 - period] == token else 0
            if self.matches[period] + period >= max(self.MIN_TOKENS, self.MIN_REPEATS * period):
                return True
        return False


class TextStream:
    """Ids to text, piece by piece; a character whose bytes span several tokens waits until it is complete."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast):
        self.tokenizer = tokenizer
        self.pending: list[int] = []

    def push(self, token: int) -> str:
        """The text that this token completes, maybe empty."""
        self.pending.append(token)
        text = self._decode()
        if text.endswith("\ufffd") and len(self.pending) < 8:
            return ""
        self.pending = []
        return text

    def flush(self) -> str:
        """The rest, complete or not."""
        text, self.pending = self._decode(), []
        return text

    def _decode(self) -> str:
        return str(self.tokenizer.decode(self.pending, skip_special_tokens=False, clean_up_tokenization_spaces=False))


@torch.inference_mode()
def decode(
    step: Callable[[int, KeyValueCache], torch.Tensor], logits: torch.Tensor, cache: KeyValueCache, sampler: Sampler
) -> Iterator[int]:
    """Endless tokens, starting from the logits of a prefill; the consumer decides when to stop.

    A token is fed to the model only when the next one is wanted, so that after a stop the cache lacks the last token.

    Args:
        step: feeds a token and returns the next logits, see `decode_step`.
    """
    while True:
        token = sampler(logits)
        yield token
        logits = step(token, cache)
