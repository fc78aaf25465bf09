"""Token by token: a preallocated key-value cache, sampling, a guard against loops, and text that never breaks a letter.

This module knows embeddings and ids only: no files, no conversations, no page.
"""

from collections.abc import Callable, Iterator

import torch
from transformers import PreTrainedTokenizerFast

from .cache import KeyValueCache
from .sampling import Sampler

PREFILL_CHUNK = 512  # tokens fed at once; a cancel waits for one chunk at most


class RepetitionGuard:
    """Notices an answer that runs in a circle: its last tokens repeat with a period of at most `LONGEST_PERIOD`."""

    LONGEST_PERIOD, FEWEST_TOKENS, FEWEST_ROUNDS = 64, 40, 4

    def __init__(self):
        # For each period, how many last tokens equal the one a period ago.
        self.matches = [0] * (self.LONGEST_PERIOD + 1)
        self.ids: list[int] = []

    def is_looping(self, token: int) -> bool:
        """Take the next token and say whether the answer is in a loop now."""
        self.ids.append(token)
        for period in range(1, min(len(self.matches), len(self.ids))):
            self.matches[period] = self.matches[period] + 1 if self.ids[-1 - period] == token else 0
            if self.matches[period] + period >= max(self.FEWEST_TOKENS, self.FEWEST_ROUNDS * period):
                return True
        return False


class TextStream:
    """Ids to text, piece by piece; a letter whose bytes span several tokens is held back until it is whole."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast):
        self.tokenizer = tokenizer
        self.pending: list[int] = []

    def push(self, token: int) -> str:
        """Text that has become certain with this token, maybe empty."""
        self.pending.append(token)
        text = self._decode()
        if text.endswith("\ufffd") and len(self.pending) < 8:
            return ""
        self.pending = []
        return text

    def flush(self) -> str:
        """What is still held back."""
        text, self.pending = self._decode(), []
        return text

    def _decode(self) -> str:
        return self.tokenizer.decode(self.pending, skip_special_tokens=False, clean_up_tokenization_spaces=False)


@torch.inference_mode()
def prefill(
    model, embeddings: torch.Tensor, cache: KeyValueCache, is_cancelled: Callable[[], bool]
) -> torch.Tensor | None:
    """Feed the new part of a prompt, [1, length, hidden_size], in chunks; logits [1, vocabulary], None if cancelled."""
    logits = None
    for chunk in embeddings.split(PREFILL_CHUNK, dim=1):
        if is_cancelled():
            return None
        logits = model(inputs_embeds=chunk, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1]
    return logits


@torch.inference_mode()
def decode(
    step: Callable[[int, KeyValueCache], torch.Tensor], logits: torch.Tensor, cache: KeyValueCache, sampler: Sampler
) -> Iterator[int]:
    """Endless tokens from the logits of a prefill on; the consumer decides when to stop.

    `step` feeds a token and gives the next logits, see `model.decode_step`.

    A token is fed to the model only when the next one is asked for, so after a stop the cache lacks the last token.
    """
    while True:
        token = sampler(logits)
        yield token
        logits = step(token, cache)
