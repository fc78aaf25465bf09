"""AudioChat: streaming, reuse of what is known, limits, cancellation; on a tiny random model."""

import threading

import pytest
import torch

from qwen_audio_chat.audio.decoding import AudioError
from qwen_audio_chat.chat import AudioChat, ChatError
from qwen_audio_chat.engine.cache import KeyValueCache
from qwen_audio_chat.engine.generation import RepetitionGuard, TextStream
from qwen_audio_chat.engine.sampling import GenerationOptions
from qwen_audio_chat.prompts.conversation import Conversation
from tests.conftest import build_tiny_model

SHORT = GenerationOptions(max_new_tokens=12)


@pytest.fixture(params=["llama", "qwen_audio_text"])
def chat(request, tiny_tokenizer, tiny_processor) -> AudioChat:
    model = build_tiny_model(tiny_tokenizer, request.param)
    return AudioChat(model, tiny_processor, name="tiny", precision="float32")


def test_stream_equals_generate(chat, clip):
    conversation = Conversation().ask("What is said?", [clip(1.0), clip(2.3, 700)])
    reply = chat.stream(conversation, SHORT)
    pieces = list(reply)
    inputs = chat.processor.apply_chat_template(conversation, add_generation_prompt=True)
    expected = chat.model.generate(**inputs, max_new_tokens=12, do_sample=False, suppress_tokens=chat.forbidden_ids)[
        0, inputs["input_ids"].shape[1] :
    ].tolist()
    assert reply.token_ids == [token for token in expected if token not in chat.stop_ids]
    assert "".join(pieces) == reply.text == chat.tokenizer.decode(reply.token_ids)
    assert reply.finish_reason in ("stop", "length")


def test_reuse_changes_nothing_but_the_work(chat, clip):
    session = chat.new_session()
    with_reuse, without = Conversation(), Conversation()
    reused = []
    for turn in range(4):
        audios = [clip(1.5), clip(0.8, 300)] if turn == 0 else [clip(1.0, 900)] if turn == 2 else []
        text = f"Which of them is number {turn}?"
        a = chat.stream(with_reuse.ask(text, audios), SHORT, session=session).finish()
        b = chat.stream(without.ask(text, audios), SHORT).finish()
        assert a.token_ids == b.token_ids
        assert b.stats.reused_tokens == 0
        reused.append(a.stats.reused_tokens / a.stats.prompt_tokens)
        with_reuse.answer(a.text, a.token_ids)
        without.answer(b.text, b.token_ids)
    assert reused[0] == 0
    assert min(reused[1], reused[3]) > 0.6


def test_another_audio_is_not_taken_for_the_cached_one(chat, clip):
    session = chat.new_session()
    first = chat.stream(Conversation().ask("What is said?", [clip(1.0)]), SHORT, session=session).finish()
    other = Conversation().ask("What is said?", [clip(1.0, 800)])
    again = chat.stream(other, SHORT, session=session).finish()
    fresh = chat.stream(other, SHORT).finish()
    assert again.stats.reused_tokens < first.stats.prompt_tokens - 25
    assert again.token_ids == fresh.token_ids


def test_new_rotary_base_recomputes_the_prefix(tiny_tokenizer, tiny_processor, clip):
    chat = AudioChat(
        build_tiny_model(tiny_tokenizer, "qwen_audio_text"), tiny_processor, name="tiny", precision="float32"
    )
    session = chat.new_session()
    conversation = Conversation().ask("What is said?", [clip(29.0), clip(29.5, 300)])
    reply = chat.stream(conversation, SHORT, session=session).finish()
    conversation.answer(reply.text, reply.token_ids).ask("And here?", [clip(28.0, 500)])
    second = chat.stream(conversation, SHORT, session=session).finish()
    assert second.stats.prompt_tokens > 2048 and second.stats.reused_tokens == 0
    assert second.token_ids == chat.stream(conversation, SHORT).finish().token_ids
    inputs = chat.processor.apply_chat_template(conversation, add_generation_prompt=True)
    expected = chat.model.generate(**inputs, max_new_tokens=12, do_sample=False, suppress_tokens=chat.forbidden_ids)
    generated = expected[0, inputs["input_ids"].shape[1] :].tolist()
    assert second.token_ids == [token for token in generated if token not in chat.stop_ids]


def test_each_clip_is_encoded_once_per_session(chat, clip, monkeypatch):
    calls = []
    encode = chat.model.get_audio_features
    monkeypatch.setattr(chat.model, "get_audio_features", lambda *args: calls.append(1) or encode(*args))
    session = chat.new_session()
    conversation = Conversation().ask("One", [clip(1.0), clip(2.0)])
    for _ in range(3):
        reply = chat.stream(conversation, SHORT, session=session).finish()
        conversation.answer(reply.text, reply.token_ids).ask("More")
    assert len(calls) == 2


def test_cancel_stops_within_a_token_and_keeps_what_was_said(chat, clip):
    cancel = threading.Event()
    reply = chat.stream(Conversation().ask("Go", [clip(1.0)]), GenerationOptions(max_new_tokens=200), cancel=cancel)
    next(reply)
    said = len(reply.token_ids)
    cancel.set()
    reply.finish()
    assert reply.finish_reason == "cancelled" and len(reply.token_ids) <= said + 1
    before = chat.stream(Conversation().ask("Go"), cancel=cancel).finish()
    assert before.finish_reason == "cancelled" and before.token_ids == []


def test_paused_reader_blocks_nobody(chat, clip):
    paused = chat.stream(Conversation().ask("Go", [clip(1.0)]), SHORT)
    next(paused)
    assert chat.stream(Conversation().ask("Me too"), SHORT).finish().finish_reason
    assert paused.finish().finish_reason


def test_full_context_drops_the_oldest_turns_and_says_so(chat, clip):
    chat.info = type(chat.info)(**{**vars(chat.info), "context_limit": 400})
    conversation = Conversation()
    for turn in range(6):
        conversation.ask(f"Turn {turn}", [clip(4.0, 200 + turn)]).answer("Fine.")
    conversation.ask("And now?")
    reply = chat.stream(conversation, GenerationOptions(max_new_tokens=8)).finish()
    assert 0 < reply.dropped_turns < 6
    assert f"oldest {reply.dropped_turns} turn" in reply.notices[0]
    with pytest.raises(ChatError, match="shorter audio"):
        chat.stream(Conversation().ask("Long", [clip(29.0)])).finish()


def test_long_audio_is_split_and_said(chat, clip):
    reply = chat.stream(Conversation().ask("What?", [clip(65.0)]), GenerationOptions(max_new_tokens=2)).finish()
    assert reply.notices == ["Audio 1 is 65 s long and was heard in 3 pieces."]
    assert reply.stats.prompt_tokens > 65 * 25


def test_errors_leave_the_chat_usable(chat, clip):
    session = chat.new_session()
    with pytest.raises(ChatError):
        chat.stream([], session=session).finish()
    with pytest.raises(AudioError):
        chat.stream(Conversation().ask("Hm", [b"no audio at all"]), session=session).finish()
    assert chat.stream(Conversation().ask("Hm", [clip(0.5)]), SHORT, session=session).finish().finish_reason


def test_sampling_repeats_with_a_seed(chat):
    conversation = Conversation().ask("Tell me more")
    options = GenerationOptions(max_new_tokens=20, do_sample=True, top_p=0.95, temperature=1.5, seed=3)
    one, two = (chat.stream(conversation, options).finish().token_ids for _ in range(2))
    other = chat.stream(conversation, GenerationOptions(**{**vars(options), "seed": 4})).finish().token_ids
    assert one == two != other


def test_continue_goes_on_with_the_same_answer(chat, clip):
    conversation = Conversation().ask("Tell me", [clip(1.0)])
    whole = chat.stream(conversation, GenerationOptions(max_new_tokens=16)).finish()
    half = chat.stream(conversation, GenerationOptions(max_new_tokens=8)).finish()
    rest = chat.stream(
        Conversation(conversation).answer(half.text, half.token_ids), GenerationOptions(max_new_tokens=8)
    ).finish()
    assert half.token_ids + rest.token_ids == whole.token_ids


def test_caches_are_bounded_and_freed(chat, clip):
    sessions = [chat.new_session() for _ in range(6)]
    for session in sessions:
        chat.stream(Conversation().ask("Go", [clip(3.0)]), SHORT, session=session).finish()
        if session is sessions[0]:
            chat.sessions.max_cache_bytes = 3 * session.cache.nbytes
    held = [session.cache.nbytes for session in sessions if session.cache is not None]
    assert len(held) == 3 and sum(held) <= chat.sessions.max_cache_bytes
    assert sessions[0].cache is None and sessions[-1].cache is not None
    chat.close_session(sessions[-1])
    assert sessions[-1].cache is None and not sessions[-1].embeddings


def test_cache_grows_and_crops():
    cache, whole = KeyValueCache(), torch.randn(1, 2, 700, 4)
    for start in range(0, 700, 7):
        keys, _ = cache.update(whole[..., start : start + 7, :], whole[..., start : start + 7, :], 0)
    assert torch.equal(keys, whole)
    cache.keep(300)
    keys, _ = cache.update(whole[..., :5, :], whole[..., :5, :], 0)
    assert torch.equal(keys, torch.cat((whole[..., :300, :], whole[..., :5, :]), dim=-2))


def test_repetition_guard():
    guard = RepetitionGuard()
    assert not any(guard.is_looping(token) for token in range(500))
    guard = RepetitionGuard()
    answer = [*range(50), *([7, 8, 9] * 30)]
    stopped = next(i for i, token in enumerate(answer) if guard.is_looping(token))
    assert 50 + 36 <= stopped <= 50 + 45


def test_text_stream_never_breaks_a_letter(tiny_tokenizer):
    text = "Grüße 你好 😀!"
    stream, ids = TextStream(tiny_tokenizer), tiny_tokenizer(text).input_ids
    pieces = [stream.push(token) for token in ids]
    assert "".join(pieces) + stream.flush() == text
    assert not any("\ufffd" in piece for piece in pieces)
