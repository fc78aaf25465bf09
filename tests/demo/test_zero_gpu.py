"""ZeroGPU with a stand-in for its package, which pickles all arguments and results as the real one does."""

import pickle
import sys
import threading
import types

import pytest

from qwen_audio_chat.audio.audio import Audio
from qwen_audio_chat.commands import serve_command as command
from qwen_audio_chat.demo.page_audio import question_message
from qwen_audio_chat.demo.visitors import Visitors
from qwen_audio_chat.engine.sampling import GenerationOptions
from qwen_audio_chat.prompts.conversation import Conversation

OPTIONS = GenerationOptions(max_new_tokens=12)


@pytest.fixture
def spaces(monkeypatch):
    """A module `spaces` that records what was asked of it."""
    asked = []

    def gpu(task, duration):
        def in_other_process(*arguments):
            arguments = pickle.loads(pickle.dumps(arguments))
            asked.append(duration(*arguments))
            try:
                for result in task(*arguments):
                    yield pickle.loads(pickle.dumps(result))
            except GeneratorExit:
                asked.append("closed")
                raise

        return in_other_process

    module = types.ModuleType("spaces")
    module.GPU, module.asked = gpu, asked
    monkeypatch.setitem(sys.modules, "spaces", module)
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    return module


@pytest.fixture
def borrowing(spaces, tiny_chat, monkeypatch):
    """The chat of a page on ZeroGPU."""
    from qwen_audio_chat.demo import page

    loaded = []
    monkeypatch.setattr(command, "load_from", lambda args: loaded.append(args.quantization) or tiny_chat)
    monkeypatch.setattr(page, "build_demo", lambda chat: chat)
    args = types.SimpleNamespace(quantization="auto")
    chat = command._build(args)
    assert loaded == ["none"] and spaces.asked == [], "no GPU is asked for before there is a question"
    return chat


def test_answers_are_the_same_on_a_borrowed_gpu(borrowing, spaces, tiny_chat, clip, tmp_path):
    visitor = Visitors(borrowing).get("someone")
    messages = [question_message("What is it?", [visitor.add_audio("tone.wav", Audio(clip(2.0)))])]
    there = borrowing.stream(messages, OPTIONS, session=visitor.session)
    pieces = list(there)
    here = tiny_chat.stream(messages, OPTIONS).finish()
    assert "".join(pieces) == there.text == here.text and len(pieces) > 3
    assert (there.token_ids, there.finish_reason) == (here.token_ids, here.finish_reason)
    assert there.stats.prompt_tokens == here.stats.prompt_tokens
    assert spaces.asked == [16]
    visitor.forget()


def test_stop_frees_the_gpu(borrowing, spaces, clip):
    cancel = threading.Event()
    reply = borrowing.stream(Conversation().ask("What is it?", [clip(1.0)]), OPTIONS, cancel=cancel)
    next(reply)
    cancel.set()
    reply.finish()
    assert reply.finish_reason == "cancelled" and 0 < len(reply.token_ids) < 12
    assert spaces.asked[-1] == "closed"
