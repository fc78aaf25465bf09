"""Visitors and their jobs: leaving, deletions, and actions that meet each other."""

import threading
import time

import gradio as gr
import pytest

from qwen_audio_chat.audio.audio import Audio
from qwen_audio_chat.demo.ask_handlers import AskHandlers
from qwen_audio_chat.demo.edit_handlers import EditHandlers
from qwen_audio_chat.demo.page_state import PageState
from qwen_audio_chat.demo.texts import text
from qwen_audio_chat.demo.visitors import Visitors
from qwen_audio_chat.prompts.messages import message_text


def test_visitors_who_left_are_forgotten_in_time_by_one_timer(tiny_chat, clip):
    visitors = Visitors(tiny_chat, grace_seconds=0.2)
    folders = []
    for name in ("one", "two", "three"):
        visitor = visitors.get(name)
        visitor.add_audio("tone.wav", Audio(clip(1.0)))
        visitor.conversation.ask("What is it?")
        folders.append(visitor.folder)
    others = set(threading.enumerate())  # pages of other tests may still be waiting for theirs
    visitors.leave("one")
    visitors.leave("two")
    assert [type(thread) for thread in set(threading.enumerate()) - others] == [threading.Timer]
    end = time.monotonic() + 30
    while any(folder.exists() for folder in folders[:2]) and time.monotonic() < end:
        time.sleep(0.1)
    assert len(visitors) == 1
    assert [folder.exists() for folder in folders] == [False, False, True]
    visitors.forget_all()


def test_a_visitor_who_leaves_the_queue_frees_the_place_and_finds_the_question_again(tiny_chat):
    visitors, key = Visitors(tiny_chat), "k" * 40
    visitor = visitors.rejoin("before", key)
    visitor.conversation.ask("What is it?")
    visitor.queue_answer()
    visitors.leave("before", "It was stopped.")
    assert visitors.num_answering() == 0
    assert visitors.rejoin("after", key) is visitor
    assert visitor.note == "It was stopped." and len(visitor.conversation) == 1
    visitors.forget_all()


REQUEST = gr.Request(session_hash="somebody", headers={})


@pytest.fixture
def page(tiny_chat):
    page = PageState(tiny_chat)
    page.visitors.rejoin("somebody", "")
    yield page
    page.visitors.forget_all()


@pytest.fixture
def warnings(monkeypatch):
    shown = []
    monkeypatch.setattr(gr, "Warning", lambda message, **_: shown.append(message))
    return shown


def test_what_is_deleted_while_it_is_read_stays_deleted(page, clips, warnings):
    visitor, _ = page.visitor(REQUEST)
    message = {"text": "Which?", "files": [str(clips["low"]), str(clips["high"])]}
    for steps in range(1, 3):
        reading = AskHandlers(page, []).submit(message, False, REQUEST)
        for _ in range(steps):
            next(reading)
        visitor.forget()
        assert list(reading) == [] and not warnings
        assert not visitor.conversation and not visitor.folder.exists() and not visitor.is_answering
    *_, last = AskHandlers(page, []).submit(message, False, REQUEST)
    assert len(visitor.conversation) == 1 and visitor.is_answering


def test_nothing_that_was_read_before_a_deletion_is_kept(page, clip):
    visitor, _ = page.visitor(REQUEST)
    job = visitor.begin_reading()
    visitor.forget()
    assert visitor.add_audio("tone.wav", Audio(clip(1.0)), job) is None
    assert not visitor.folder.exists()


def test_a_reload_while_a_message_is_read_keeps_what_was_said(page, clips, warnings):
    visitor = page.visitors.rejoin("before", "k" * 40)
    visitor.conversation.ask("Hello.").answer("Hi.")
    message = {"text": "What?", "files": [str(clips["low"])]}
    reading = AskHandlers(page, []).submit(message, True, gr.Request(session_hash="before", headers={}))
    next(reading)
    page.visitors.leave("before")
    assert list(reading) == [] and not visitor.is_answering
    assert page.visitors.rejoin("after", "k" * 40) is visitor and len(visitor.conversation) == 2
    list(AskHandlers(page, []).submit(message, True, gr.Request(session_hash="after", headers={})))
    assert visitor.is_answering and not warnings


def test_a_deletion_as_a_message_comes_in_leaves_nobody_busy(page, clips):
    visitor, _ = page.visitor(REQUEST)
    begin = visitor.begin_reading
    visitor.begin_reading = lambda: visitor.forget() or begin()
    list(AskHandlers(page, []).submit({"text": "What?", "files": [str(clips["low"])]}, False, REQUEST))
    assert visitor.is_answering and not visitor.is_reading


def test_one_message_is_read_at_a_time(page, clips, warnings):
    message = {"text": "What?", "files": [str(clips["low"])]}
    first, second = (AskHandlers(page, []).submit(message, False, REQUEST) for _ in range(2))
    next(first)
    assert len(list(second)) == 1 and warnings == [text("busy", "en")]
    list(first)
    visitor, _ = page.visitor(REQUEST)
    assert len(visitor.conversation) == 1 and not visitor.is_reading


def test_a_page_that_is_older_than_the_server_says_so(page, clips, warnings):
    page.visitors.forget_all()
    editing = EditHandlers(page)
    for action in (editing.retry, editing.undo, editing.continue_answer):
        action(REQUEST)
    list(AskHandlers(page, []).submit({"text": "And now?", "files": []}, True, REQUEST))
    assert warnings == [text("gone", "en")] * 4
    visitor, _ = page.visitor(REQUEST)
    for number, question in enumerate(("Hello.", "And now?")):  # an empty page stays usable
        list(AskHandlers(page, []).submit({"text": question, "files": []}, number > 0, REQUEST))
        visitor.drop_job()
        assert len(visitor.conversation) == number + 1


def test_a_message_that_is_read_is_not_lost_to_another_action(page, clips, warnings):
    visitor, _ = page.visitor(REQUEST)
    visitor.conversation.ask("Hello.").answer("Hi.")
    reading = AskHandlers(page, []).submit({"text": "What?", "files": [str(clips["low"])]}, True, REQUEST)
    next(reading)
    editing = EditHandlers(page)
    editing.retry(REQUEST), editing.undo(REQUEST), editing.continue_answer(REQUEST)
    editing.edit(gr.EditData(None, {"index": 0, "value": "How?", "previous_value": "Hello."}), REQUEST)
    editing.load("conversation.json", REQUEST)
    assert warnings == [text("busy", "en")] * 5 and visitor.is_reading
    list(reading)
    assert [message_text(message) for message in visitor.conversation] == ["Hello.", "Hi.", "What?"]
    assert visitor.is_answering
