"""Answers as the handlers yield them, without a browser."""

from pathlib import Path

import gradio as gr
import pytest

from qwen_audio_chat.audio.audio import Audio
from qwen_audio_chat.demo import answer_handlers
from qwen_audio_chat.demo.answer_handlers import AnswerHandlers, generation_options
from qwen_audio_chat.demo.edit_handlers import EditHandlers
from qwen_audio_chat.demo.page_audio import question_message
from qwen_audio_chat.demo.page_state import PageState
from qwen_audio_chat.demo.texts import text
from qwen_audio_chat.errors import UserError
from qwen_audio_chat.reply import Reply

REQUEST = gr.Request(session_hash="somebody", headers={})
CHINESE_REQUEST = gr.Request(session_hash="somebody", headers={"accept-language": "zh-CN"})
SETTINGS = (False, 1.0, 0.5, 0, 1.0, 12, "")  # in the order of the page


@pytest.fixture
def page(tiny_chat):
    page = PageState(tiny_chat)
    yield page
    page.visitors.forget_all()


@pytest.fixture
def visitor(page, clip):
    """Somebody whose question waits for its answer."""
    visitor = page.visitors.rejoin("somebody", "")
    part = visitor.add_audio("tone.wav", Audio(clip(1.0)))
    visitor.conversation.append(question_message("What is it?", [part]))
    visitor.queue_answer()
    return visitor


@pytest.fixture
def replace_answer(monkeypatch):
    """Lets a function produce the answers: `replace_answer(produce)`."""

    def replace(produce):
        monkeypatch.setattr(answer_handlers, "answer", lambda *_, **options: Reply(2048, lambda reply: produce(reply)))

    return replace


def finish(page, request=REQUEST) -> tuple:
    """Read an answer to its end; the last view."""
    *_, last = AnswerHandlers(page).answer(request, *SETTINGS)
    return last


def test_an_answer_is_shown_as_it_grows_and_is_kept(page, visitor, monkeypatch):
    monkeypatch.setattr(answer_handlers, "FRAME_SECONDS", 0.0)
    views = list(AnswerHandlers(page).answer(REQUEST, *SETTINGS))
    assert visitor.job is None
    question, answer = visitor.conversation
    assert len(answer["token_ids"]) == 12 and answer["finish_reason"] == "length"
    bubbles = [view[0][-1]["content"] for view in views[:-1]]
    assert bubbles[0] == "…" and len(set(bubbles)) > 5
    assert views[-1][1]["submit_btn"] and not views[-1][1]["stop_btn"]
    assert not question["content"][0]["audio"]._log_mels, "the log-mel is needed no longer"
    assert list(AnswerHandlers(page).answer(REQUEST, *SETTINGS)) == [], "no answer waits any more"


def test_a_user_error_is_shown_in_the_language_of_the_visitor(page, visitor, replace_answer):
    def produce(reply):
        raise UserError("The audio was deleted; add it again.")
        yield

    replace_answer(produce)
    chatbot, _, _ = finish(page, CHINESE_REQUEST)
    assert visitor.note == "音频已删除；请重新添加。" and len(visitor.conversation) == 1
    assert visitor.note in chatbot[-1]["content"].value


def test_any_other_error_is_logged_and_not_shown(page, visitor, replace_answer, caplog):
    def produce(reply):
        reply.text, reply.token_ids = "It is", [1, 2]
        yield "It is"
        raise ValueError("shape mismatch at layer 3")

    replace_answer(produce)
    finish(page)
    assert visitor.note == text("failed", "en") and visitor.job is None
    assert visitor.conversation[-1]["content"] == "It is", "what was said before is kept"
    assert "shape mismatch at layer 3" in caplog.text


def test_an_empty_answer_says_so(page, visitor, replace_answer):
    def produce(reply):
        reply.finish_reason = "stop"
        yield from ()

    replace_answer(produce)
    finish(page)
    assert visitor.note == text("silent", "en")


def test_stop_keeps_the_text_so_far(page, visitor):
    handlers = AnswerHandlers(page)
    answering = handlers.answer(REQUEST, *SETTINGS)
    next(answering)
    next(answering)
    handlers.stop(REQUEST)
    list(answering)
    answer = visitor.conversation[-1]
    assert answer["finish_reason"] == "cancelled" and 0 < len(answer["token_ids"]) < 12


def test_continue_adds_to_the_answer(page, visitor):
    finish(page)
    first = visitor.conversation[-1]
    EditHandlers(page).continue_answer(REQUEST)
    assert visitor.is_answering
    finish(page)
    longer = visitor.conversation[-1]
    assert len(visitor.conversation) == 2 and longer["content"].startswith(first["content"])
    assert longer["token_ids"][:12] == first["token_ids"] and len(longer["token_ids"]) > 12


@pytest.mark.parametrize("handler", ["stop", "after_queue"])
def test_an_answer_that_never_began_leaves_a_usable_page(page, visitor, handler):
    chatbot, box, _ = getattr(AnswerHandlers(page), handler)(REQUEST)
    assert visitor.job is None and len(visitor.conversation) == 1
    assert visitor.note == text("no_answer" if handler == "stop" else "queue_full", "en")
    assert box["submit_btn"] and visitor.note in chatbot[-1]["content"].value
    assert list(AnswerHandlers(page).answer(REQUEST, *SETTINGS)) == []


def test_retry_while_answering_drops_the_answer_under_way(page, visitor):
    first = AnswerHandlers(page).answer(REQUEST, *SETTINGS)
    next(first)
    next(first)
    EditHandlers(page).retry(REQUEST)
    list(first)
    assert len(visitor.conversation) == 1 and visitor.is_answering
    finish(page)
    assert len(visitor.conversation) == 2 and len(visitor.conversation[-1]["token_ids"]) == 12


def test_undo_while_answering_puts_the_question_back(page, visitor):
    answering = AnswerHandlers(page).answer(REQUEST, *SETTINGS)
    next(answering)
    _, box, _, _ = EditHandlers(page).undo(REQUEST)
    list(answering)
    assert not visitor.conversation and visitor.job is None
    assert box["value"]["text"] == "What is it?"
    [file] = box["value"]["files"]
    assert file.orig_name == "tone.wav" and visitor.names[Path(file.path)] == "tone.wav"


def test_a_deletion_while_answering_keeps_nothing(page, visitor):
    answering = AnswerHandlers(page).answer(REQUEST, *SETTINGS)
    next(answering)
    EditHandlers(page).clear(None, REQUEST)
    list(answering)
    assert not visitor.conversation and not visitor.folder.exists() and visitor.job is None and not visitor.note


def test_a_seed_may_be_any_text():
    seeds = [generation_options(*SETTINGS[:-1], seed).seed for seed in ("", " 7 ", "abc", "abc", "abd")]
    assert seeds[:2] == [None, 7] and seeds[2] == seeds[3] != seeds[4]
