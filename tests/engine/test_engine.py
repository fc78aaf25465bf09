"""A cancel ends a pass between two layers, and what was finished before can be used again."""

import threading

import pytest
import torch

from qwen_audio_chat.engine import engine as engine_module
from qwen_audio_chat.engine.cache import KeyValueCache
from qwen_audio_chat.engine.sampling import GenerationOptions
from qwen_audio_chat.prompts.conversation import Conversation

SHORT = GenerationOptions(max_new_tokens=5)


def cancelled_after(checks: int):
    left = iter(range(checks))
    return lambda: next(left, None) is None


@pytest.mark.parametrize("checks", [0, 1, 2, 3, 5])
def test_a_cancelled_prompt_holds_the_chunks_that_were_finished_in_every_layer(tiny_chat, checks, monkeypatch):
    monkeypatch.setattr(engine_module, "DEFAULT_PREFILL_CHUNK", 4)
    engine, layers = tiny_chat.engine, len(tiny_chat.model.model.language_model.layers)
    embeddings, cache = engine.embed(list(range(300, 312)), []), KeyValueCache()
    assert engine.prefill(embeddings, cache, cancelled_after(checks)) is None
    finished = 4 * (checks // layers)
    assert all(layer.get_seq_length() in (0, finished) for layer in cache.layers) and cache.get_seq_length() == finished
    logits = engine.prefill(embeddings[:, finished:], cache, lambda: False)
    whole = engine.prefill(embeddings, KeyValueCache(), lambda: False)
    assert torch.allclose(logits, whole, atol=1e-5)


def test_a_clip_is_left_between_two_layers_of_the_encoder(tiny_chat, clip):
    session = tiny_chat.new_session()
    conversation = Conversation().ask("What is it?", [clip(2.0)])
    cancel = threading.Event()
    layer = tiny_chat.model.model.audio_tower.layers[0]
    hook = layer.register_forward_hook(lambda *_: cancel.set())
    try:
        reply = tiny_chat.stream(conversation, SHORT, session=session, cancel=cancel).finish()
    finally:
        hook.remove()
    assert reply.finish_reason == "cancelled" and not session.embeddings and not reply.text
    again = tiny_chat.stream(conversation, SHORT, session=session).finish()
    assert again.text == tiny_chat.stream(conversation, SHORT).finish().text
