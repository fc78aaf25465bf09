"""The lean decode step against the model's own forward: every kind of text model, every kind of weight."""

import pytest
import torch

from qwen_audio_chat.engine.cache import KeyValueCache
from qwen_audio_chat.engine.decode_step import DecodeStep
from qwen_audio_chat.model.decoder import ntk_alpha
from qwen_audio_chat.model.quantization import DECODER_LAYERS, quantize_for_release
from tests.conftest import build_tiny_model


@torch.inference_mode()
def both_ways(model, length: int, tokens: int = 12, alpha: int | None = None):
    """Greedy tokens and logits by the model's forward and by the step, after a random prompt."""
    prompt = torch.randint(model.config.text_config.vocab_size, (1, length), generator=torch.Generator().manual_seed(0))
    step = DecodeStep(model)
    assert step.is_lean
    ways = []
    for feed in (forward(model), step):
        cache = KeyValueCache()
        if alpha:
            cache.ntk_alpha = torch.tensor([float(alpha)])
        logits = model(input_ids=prompt, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1]
        seen, ids = [], []
        for _ in range(tokens):
            ids.append(int(logits.argmax()))
            logits = feed(ids[-1], cache)
            seen.append(logits)
        assert cache.get_seq_length() == length + tokens
        ways.append((ids, torch.cat(seen)))
    return ways


def forward(model):
    def feed(token, cache):
        ids = torch.tensor([[token]])
        return model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1]

    return feed


@pytest.mark.parametrize("length", [1, 300, 2042, 4090])  # from 2,048 on log-n scales, from 4,096 on a new table
def test_equals_the_forward(tiny_model, length):
    (ids, logits), (lean_ids, lean_logits) = both_ways(tiny_model, length)
    assert lean_ids == ids
    assert (lean_logits - logits).abs().max() < 1e-4  # the bound of the golden outputs; sums run in other orders


@pytest.mark.parametrize("alpha", [3, 7])
def test_follows_the_rotary_base_of_the_cache(tiny_tokenizer, alpha):
    model = build_tiny_model(tiny_tokenizer, "qwen_audio_text")
    (ids, logits), (lean_ids, lean_logits) = both_ways(model, 600, alpha=alpha)
    (_, plain), _ = both_ways(model, 600)
    assert lean_ids == ids and (lean_logits - logits).abs().max() < 1e-4
    assert (logits - plain).abs().max() > 1e-3
    assert float(ntk_alpha(torch.tensor([3000]), 2048)) == 3


def test_bfloat16_is_near(tiny_tokenizer):
    model = build_tiny_model(tiny_tokenizer).bfloat16()
    (_, logits), (_, lean_logits) = both_ways(model, 50, tokens=1)
    assert (lean_logits - logits).norm() < 0.03 * logits.norm()


@pytest.mark.parametrize(
    "parts", [{DECODER_LAYERS: 8, "embed_tokens": 8}, {DECODER_LAYERS: 8}], ids=["all packed", "float head"]
)
def test_packed_layers(tiny_tokenizer, tmp_path, parts):
    source = build_tiny_model(tiny_tokenizer)
    quantize_for_release(source, tmp_path, parts)
    model = type(source).from_pretrained(tmp_path, dtype=torch.float32).eval()
    model.generation_config = source.generation_config
    (_, logits), (_, lean_logits) = both_ways(model, 50, tokens=1)
    assert (lean_logits - logits).norm() < 0.001 * logits.norm()
    assert DecodeStep(model).threads == 1


def test_unknown_models_go_through_their_forward(tiny_tokenizer):
    model = build_tiny_model(tiny_tokenizer)
    model.config.text_config.rope_parameters["rope_type"] = "dynamic"
    step, cache = DecodeStep(model), KeyValueCache()
    assert not step.is_lean
    with torch.inference_mode():
        model(input_ids=torch.tensor([[5, 6]]), past_key_values=cache, use_cache=True)
        logits = step(7, cache)
        expected = model(input_ids=torch.tensor([[5, 6, 7]])).logits[:, -1]
    assert torch.allclose(logits, expected, atol=1e-5)
