"""What sessions keep: bounds, turns, and nothing that a broken pass left behind."""

import gc
import threading

import numpy as np
import pytest
import torch

from qwen_audio_chat.answering import answer
from qwen_audio_chat.engine import sessions as sessions_module
from qwen_audio_chat.engine.cache import KeyValueCache
from qwen_audio_chat.engine.sampling import GenerationOptions
from qwen_audio_chat.engine.sessions import SessionStore
from qwen_audio_chat.prompts.conversation import Conversation
from qwen_audio_chat.prompts.questions import question

SHORT = GenerationOptions(max_new_tokens=6)


def cache_of(nbytes: int) -> KeyValueCache:
    return type("SizedCache", (KeyValueCache,), {"nbytes": nbytes})()


def keep(store, session, nbytes):
    *_, turn = store.take_cache(session)
    store.keep_cache(session, cache_of(nbytes), np.zeros(1, np.int64), turn)


def test_a_cache_over_the_bound_is_dropped_alone():
    store = SessionStore(max_cache_bytes=5)
    sessions = [store.open() for _ in range(3)]
    for session, nbytes in zip(sessions, (1, 1, 9), strict=True):
        keep(store, session, nbytes)
    assert [session.cache is not None for session in sessions] == [True, True, False]
    keep(store, sessions[2], 4)
    assert [session.cache is not None for session in sessions] == [False, True, True]


def test_an_answer_that_ends_after_a_later_one_began_keeps_no_cache():
    store = SessionStore(max_cache_bytes=5)
    session = store.open()
    *_, first = store.take_cache(session)
    *_, second = store.take_cache(session)
    store.keep_cache(session, cache_of(1), np.zeros(1, np.int64), first)
    assert session.cache is None
    store.keep_cache(session, newer := cache_of(1), np.zeros(1, np.int64), second)
    store.keep_cache(session, cache_of(1), np.zeros(1, np.int64), first)
    assert session.cache is newer


def test_embeddings_of_all_sessions_have_one_bound_and_the_least_used_go(monkeypatch):
    monkeypatch.setattr(sessions_module, "MAX_EMBEDDING_BYTES", 3 * 40)
    store = SessionStore(max_cache_bytes=0)
    first, second = store.open(), store.open()
    for session, key in ((first, b"a"), (second, b"b"), (first, b"c"), (second, b"d"), (first, b"a")):
        store.embedding(session, key, lambda: torch.zeros(10))
    store.trim(second)
    assert (set(first.embeddings), set(second.embeddings)) == ({b"a", b"c"}, {b"d"})


def test_an_error_within_a_pass_drops_the_cache(tiny_chat, clip, monkeypatch):
    conversation, session = Conversation().ask("What is it?", [clip(1.0)]), tiny_chat.new_session()
    reply = tiny_chat.stream(conversation, SHORT, session=session).finish()
    conversation.answer(reply.text, reply.token_ids).ask("Really?")
    layer = tiny_chat.model.model.language_model.layers[1]

    def full(*_args, **_kwargs):
        raise torch.OutOfMemoryError("no memory left")

    with monkeypatch.context() as patch:
        patch.setattr(layer, "forward", full)
        with pytest.raises(torch.OutOfMemoryError):
            tiny_chat.stream(conversation, SHORT, session=session).finish()
    assert session.cache is None
    again = tiny_chat.stream(conversation, SHORT, session=session).finish()
    assert again.token_ids == tiny_chat.stream(conversation, SHORT).finish().token_ids
    assert again.stats.reused_tokens == 0


def test_a_reply_that_is_closed_gives_its_cache_back_at_once(tiny_chat, clip):
    conversation, session = Conversation().ask("What is it?", [clip(1.0)]), tiny_chat.new_session()
    reply = tiny_chat.stream(conversation, GenerationOptions(max_new_tokens=40), session=session)
    next(reply)
    assert session.cache is None
    reply.close()
    reply.close()
    assert session.cache is not None
    again = tiny_chat.stream(conversation, SHORT, session=session).finish()
    assert again.stats.reused_tokens == again.stats.prompt_tokens - 1


@pytest.mark.slow
def test_an_abandoned_reply_that_the_collector_finds_inside_the_lock_stops_nobody(tiny_chat, clip, monkeypatch):
    abandoned = tiny_chat.stream(Conversation().ask("One?", [clip(1.0)]), SHORT, session=tiny_chat.new_session())
    next(abandoned)
    del abandoned
    nbytes = KeyValueCache.nbytes.fget
    monkeypatch.setattr(KeyValueCache, "nbytes", property(lambda cache: (gc.collect(), nbytes(cache))[1]))
    conversation = Conversation().ask("Two?", [clip(1.0, 300)])
    answering = threading.Thread(
        target=lambda: tiny_chat.stream(conversation, SHORT, session=tiny_chat.new_session()).finish(), daemon=True
    )
    answering.start()
    answering.join(20)
    assert not answering.is_alive()


def test_a_cancelled_prompt_keeps_what_it_has_computed(tiny_chat, clip, monkeypatch):
    session, cancel = tiny_chat.new_session(), threading.Event()
    conversation = Conversation().ask("What is it?", [clip(1.0)])
    reply = tiny_chat.stream(conversation, SHORT, session=session).finish()
    conversation.answer(reply.text, reply.token_ids).ask("And these?", [clip(1.0, 300), clip(2.0, 500)])
    cancel.set()
    assert tiny_chat.stream(conversation, SHORT, session=session, cancel=cancel).finish().finish_reason == "cancelled"
    again = tiny_chat.stream(conversation, SHORT, session=session).finish()
    assert again.stats.reused_tokens > 0
    assert again.token_ids == tiny_chat.stream(conversation, SHORT).finish().token_ids


def test_a_prefix_that_ends_just_before_the_end_of_a_clip_is_completed_right(tiny_chat, clip):
    model, config = tiny_chat.model.model, tiny_chat.model.config
    alone = tiny_chat.engine.embed([config.audio_end_id], [])
    assert torch.equal(alone[0, 0], model.projector.boundary_embeddings.weight[1])


def test_a_transcript_in_parts_leaves_the_conversation_its_cache(tiny_chat, clip):
    session = tiny_chat.new_session()
    conversation = Conversation().ask("What is it?", [clip(12.0)])
    reply = answer(tiny_chat, conversation, SHORT, session=session).finish()
    cache = session.cache
    assert cache is not None
    conversation.answer(reply.text, reply.token_ids).ask(question("transcribe"))
    answer(tiny_chat, conversation, SHORT, session=session).finish()
    assert session.cache is cache
