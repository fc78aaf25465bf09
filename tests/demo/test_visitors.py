"""Visitors who leave."""

import threading
import time

import gradio as gr
import pytest

from qwen_audio_chat.demo.ask_handlers import Messages
from qwen_audio_chat.demo.edit_handlers import Changes
from qwen_audio_chat.demo.page_state import PageContext
from qwen_audio_chat.demo.texts import text
from qwen_audio_chat.demo.visitors import Forgotten, Visitors


def test_who_left_is_forgotten_in_time_by_one_timer(tiny_chat, clip):
    visitors = Visitors(tiny_chat, grace_seconds=0.2)
    folders = []
    for name in ("one", "two", "three"):
        visitor = visitors.get(name)
        visitor.add_clip("tone.wav", clip(1.0))
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


def test_who_leaves_the_line_gives_the_place_back_and_finds_the_question_again(tiny_chat):
    visitors, key = Visitors(tiny_chat), "k" * 40
    visitor = visitors.rejoin("before", key)
    visitor.conversation.ask("What is it?")
    visitor.answering = True  # and waits in the line, of which Gradio takes those who leave
    visitors.leave("before", "It was stopped.")
    assert visitors.answering() == 0
    assert visitors.rejoin("after", key) is visitor
    assert visitor.note == "It was stopped." and len(visitor.conversation) == 1
    visitors.forget_all()


REQUEST = gr.Request(session_hash="somebody", headers={})


@pytest.fixture
def page(tiny_chat):
    page = PageContext(tiny_chat)
    page.visitors.rejoin("somebody", "")
    yield page
    page.visitors.forget_all()


@pytest.fixture
def warnings(monkeypatch):
    told = []
    monkeypatch.setattr(gr, "Warning", lambda message, **_: told.append(message))
    return told


def test_what_is_deleted_while_it_is_read_stays_deleted(page, clips, warnings):
    visitor, _ = page.visitor(REQUEST)
    message = {"text": "Which?", "files": [str(clips["low"]), str(clips["high"])]}
    for steps in range(1, 3):
        reading = Messages(page, []).submit(message, False, REQUEST)
        for _ in range(steps):
            next(reading)
        visitor.forget()
        assert list(reading) == [] and not warnings
        assert not visitor.conversation and not visitor.folder.exists() and not visitor.answering
    *_, last = Messages(page, []).submit(message, False, REQUEST)
    assert len(visitor.conversation) == 1 and visitor.answering


def test_nothing_is_kept_of_before_a_deletion(page, clip):
    visitor, _ = page.visitor(REQUEST)
    dropped = visitor.dropped
    visitor.forget()
    with pytest.raises(Forgotten), visitor.keeping(dropped):
        visitor.add_clip("tone.wav", clip(1.0))
    assert not visitor.folder.exists()


def test_a_reload_while_a_message_is_read_keeps_what_was_said(page, clips, warnings):
    visitor = page.visitors.rejoin("before", "k" * 40)
    visitor.conversation.ask("Hello.").answer("Hi.")
    message = {"text": "What?", "files": [str(clips["low"])]}
    reading = Messages(page, []).submit(message, True, gr.Request(session_hash="before", headers={}))
    next(reading)
    page.visitors.leave("before")
    assert list(reading) == [] and not visitor.answering
    assert page.visitors.rejoin("after", "k" * 40) is visitor and len(visitor.conversation) == 2
    list(Messages(page, []).submit(message, True, gr.Request(session_hash="after", headers={})))
    assert visitor.answering and not warnings


def test_a_deletion_as_a_message_comes_in_leaves_nobody_busy(page, clips):
    visitor, _ = page.visitor(REQUEST)
    begin = visitor.begin_reading
    visitor.begin_reading = lambda: visitor.forget() or begin()
    list(Messages(page, []).submit({"text": "What?", "files": [str(clips["low"])]}, False, REQUEST))
    assert visitor.answering and not visitor.reading


def test_one_message_is_read_at_a_time(page, clips, warnings):
    message = {"text": "What?", "files": [str(clips["low"])]}
    first, second = (Messages(page, []).submit(message, False, REQUEST) for _ in range(2))
    next(first)
    assert len(list(second)) == 1 and warnings == [text("busy", "en")]
    list(first)
    visitor, _ = page.visitor(REQUEST)
    assert len(visitor.conversation) == 1 and not visitor.reading


def test_a_page_of_before_the_server_began_is_told_so(page, clips, warnings):
    page.visitors.forget_all()
    second = Changes(page)
    for action in (second.retry, second.undo, second.go_on):
        action(REQUEST)
    list(Messages(page, []).submit({"text": "And now?", "files": []}, True, REQUEST))
    assert warnings == [text("gone", "en")] * 4
    visitor, _ = page.visitor(REQUEST)
    for number, words in enumerate(("Hello.", "And now?")):  # an empty page goes on
        list(Messages(page, []).submit({"text": words, "files": []}, number > 0, REQUEST))
        visitor.interrupt()
        assert len(visitor.conversation) == number + 1
