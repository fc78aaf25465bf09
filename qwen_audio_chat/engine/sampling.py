"""How an answer is generated, and how its next token is chosen."""

from dataclasses import dataclass

import torch
from transformers.generation.logits_process import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from ..errors import UserError


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
        if self.temperature <= 0 or not 0 < self.top_p <= 1 or self.top_k < 0 or self.repetition_penalty <= 0:
            raise UserError(
                "temperature and repetition_penalty must be above 0, top_p within 0 to 1, and top_k not negative."
            )


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
        scores = self.processors(self.ids, scores)  # pyright: ignore[reportArgumentType]  a tensor of int64
        if self.generator is None:
            token = scores.argmax(dim=-1, keepdim=True)
        else:
            token = torch.multinomial(scores.softmax(dim=-1), 1, generator=self.generator)
        self.ids = torch.cat((self.ids, token), dim=1)
        return int(token)
