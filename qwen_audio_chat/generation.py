"""Token by token: a preallocated key-value cache, sampling, a guard against loops, and text that never breaks a letter.

This module knows embeddings and ids only: no files, no conversations, no page.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerFast
from transformers.cache_utils import Cache, DynamicLayer
from transformers.generation.logits_process import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

PREFILL_CHUNK = 512  # tokens fed at once; a cancel waits for one chunk at most


@dataclass(frozen=True)
class GenerationOptions:
    """How to answer. Greedy by default, so that an answer can be reproduced; with `do_sample`, give a `seed` for that.

    Raises:
        ValueError: a value out of its range.
    """

    max_new_tokens: int = 512
    do_sample: bool = False
    temperature: float = 1.0
    top_p: float = 0.5
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: int | None = None

    def __post_init__(self):
        if self.max_new_tokens < 1:
            raise ValueError("max_new_tokens must be at least 1.")
        if self.temperature <= 0 or not 0 < self.top_p <= 1 or self.top_k < 0 or self.repetition_penalty <= 0:
            raise ValueError(
                "temperature and repetition_penalty must be above 0, top_p within 0 to 1, and top_k not negative."
            )


class PreallocatedLayer(DynamicLayer):
    """Keys and values of one layer in buffers that double when full: no copy per token, cropping is free."""

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs):
        """Append keys and values, [1, heads, positions, head size], and return all that are held."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.buffers = [self._grown(x, 0, key_states.shape[-2]) for x in (key_states, value_states)]
        length = self.get_seq_length()
        self.extend(key_states.shape[-2])
        for held, states in zip((self.keys, self.values), (key_states, value_states), strict=True):
            held[..., length:, :] = states
        return self.keys, self.values

    def extend(self, count: int) -> None:
        """Hold `count` more positions, whose keys and values the caller writes into `buffers`."""
        length = self.get_seq_length()
        if length + count > self.buffers[0].shape[-2]:
            self.buffers = [self._grown(x, length, length + count) for x in self.buffers]
        self.keys, self.values = (buffer[..., : length + count, :] for buffer in self.buffers)

    @staticmethod
    def _grown(states: torch.Tensor, keep: int, needed: int) -> torch.Tensor:
        capacity = max(256, 2 ** (needed - 1).bit_length())
        buffer = states.new_empty(*states.shape[:-2], capacity, states.shape[-1])
        buffer[..., :keep, :] = states[..., :keep, :]
        return buffer

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers, room for more positions included."""
        return sum(buffer.nbytes for buffer in self.buffers) if self.is_initialized else 0


class KeyValueCache(Cache):
    """The key-value cache of one conversation (one row)."""

    def __init__(self):
        super().__init__(layer_class_to_replicate=PreallocatedLayer)

    def keep(self, length: int) -> None:
        """Forget everything after the first `length` positions."""
        if (surplus := self.get_seq_length() - length) > 0:
            self.crop(-surplus)

    def follow(self, other: "KeyValueCache", shared: int) -> None:
        """Hold what `other` holds, of which the first `shared` positions are here already, unless nothing is."""
        self.keep(shared)
        start = self.get_seq_length()
        self.ntk_alpha = getattr(other, "ntk_alpha", None)
        for number, layer in enumerate(other.layers):
            self.update(layer.keys[..., start:, :], layer.values[..., start:, :], number)

    @property
    def nbytes(self) -> int:
        """Bytes of all layers' buffers."""
        return sum(layer.nbytes for layer in self.layers)


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


class Sampler:
    """Chooses the next token from logits [1, vocabulary]: the library's processors, and a generator of its own."""

    def __init__(
        self,
        options: GenerationOptions,
        prompt_ids: list[int],
        forbidden: list[int],
        device: torch.device,
    ):
        self.ids = torch.tensor([prompt_ids], device=device)
        self.forbidden = torch.tensor(forbidden, dtype=torch.long, device=device)
        self.processors = LogitsProcessorList()
        if options.repetition_penalty != 1.0:
            self.processors.append(
                RepetitionPenaltyLogitsProcessor(options.repetition_penalty, prompt_ignore_length=len(prompt_ids))
            )
        self.generator = None
        if options.do_sample:
            self.processors.append(TemperatureLogitsWarper(options.temperature))
            if options.top_k:
                self.processors.append(TopKLogitsWarper(options.top_k))
            self.processors.append(TopPLogitsWarper(options.top_p))
            self.generator = torch.Generator(device)
            if options.seed is None:
                self.generator.seed()
            else:
                self.generator.manual_seed(options.seed)

    def __call__(self, logits: torch.Tensor) -> int:
        scores = logits.float().index_fill(-1, self.forbidden, float("-inf"))
        scores = self.processors(self.ids, scores)
        if self.generator is None:
            token = scores.argmax(dim=-1, keepdim=True)
        else:
            token = torch.multinomial(scores.softmax(dim=-1), 1, generator=self.generator)
        self.ids = torch.cat((self.ids, token), dim=1)
        return int(token)


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
