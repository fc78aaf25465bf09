"""Settings that are refused, and nucleus sampling against the library's."""

import math

import pytest
import torch
from transformers.generation.logits_process import TopPLogitsWarper

from qwen_audio_chat.engine.sampling import GenerationOptions, TopP
from qwen_audio_chat.errors import UserError


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"temperature": 1e-38},
        {"temperature": 0},
        {"top_p": math.nan},
        {"top_p": 0},
        {"top_p": 1.5},
        {"repetition_penalty": math.nan},
        {"repetition_penalty": math.inf},
        {"seed": 10**20},
        {"max_new_tokens": 0},
        {"top_k": -1},
    ],
    ids=str,
)
def test_values_out_of_range_are_refused_in_a_sentence(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        GenerationOptions(**wrong)


@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("scale", [0.1, 1.0, 4.0], ids=["flat", "plain", "sharp"])
def test_the_nucleus_is_the_library_s_also_where_it_is_larger_than_what_is_sorted_first(top_p, scale):
    scores = scale * torch.randn(3, 5000, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    ours, theirs = TopP(top_p)(torch.empty(0), scores), TopPLogitsWarper(top_p)(torch.empty(0), scores)
    assert torch.equal(ours.isfinite(), theirs.isfinite()) and torch.equal(ours.softmax(-1), theirs.softmax(-1))
