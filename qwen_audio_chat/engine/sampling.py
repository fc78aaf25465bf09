"""How an answer is generated, and how its next token is chosen."""

import math
from dataclasses import dataclass

import torch
from transformers.generation.logits_process import (
    LogitsProcessor,
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
)

from ..errors import UserError

MIN_TEMPERATURE = 0.01


@dataclass(frozen=True)
class GenerationOptions:
    """Settings of an answer. Greedy by default; with `do_sample`, a `seed` makes it reproducible.

    Raises:
        UserError: a value is out of its range.
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
            raise UserError("max_new_tokens must be at least 1.")
        # A smaller temperature overflows, and NaN would end a CUDA process: both pass a plain comparison.
        if not MIN_TEMPERATURE <= self.temperature < math.inf or not 0 < self.repetition_penalty < math.inf:
            raise UserError(
                "temperature must be at least {lowest}, and repetition_penalty above 0.", lowest=MIN_TEMPERATURE
            )
        if not 0 < self.top_p <= 1 or self.top_k < 0:
            raise UserError("top_p must be above 0 and at most 1, and top_k not negative.")
        if self.seed is not None and not -(2**63) <= self.seed < 2**64:
            raise UserError("seed must have at most 64 bits.")


class TopP(LogitsProcessor):
    """Nucleus sampling: only the most probable tokens that together reach `top_p` stay (Holtzman et al., 2020).

    Sorting a whole vocabulary takes longer than a small model's step, so the best `SORTED_TOKENS` are sorted first, and
    the rest only where those don't reach `top_p`.
    """

    SORTED_TOKENS = 1024

    def __init__(self, top_p: float):
        self.top_p = top_p

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """scores [rows, vocabulary] → the same, minus infinity outside the nucleus; the best token always stays."""
        probabilities = scores.softmax(dim=-1)
        for length in (min(self.SORTED_TOKENS, scores.shape[-1]), scores.shape[-1]):
            best, tokens = probabilities.topk(length, dim=-1)
            before = best.cumsum(dim=-1) - best  # what the better tokens reach together
            if bool((before[:, -1] + best[:, -1] >= self.top_p).all()):
                break
        stays = torch.zeros_like(scores, dtype=torch.bool).scatter(-1, tokens, before < self.top_p)
        return scores.masked_fill(~stays, float("-inf"))


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
            self.processors.append(TopP(options.top_p))
            self.generator = torch.Generator(device)
            if options.seed is None:
                self.generator.seed()
            else:
                self.generator.manual_seed(options.seed)

    def __call__(self, logits: torch.Tensor) -> int:
        scores = logits.float().index_fill(-1, self.forbidden, float("-inf"))
        scores = self.processors(self.ids, scores)  # pyright: ignore[reportArgumentType]  a tensor of int64
        if self.generator is None:
            token = scores.argmax(dim=-1, keepdim=True)
        else:
            token = torch.multinomial(scores.softmax(dim=-1), 1, generator=self.generator)
        self.ids = torch.cat((self.ids, token), dim=1)
        return int(token)
