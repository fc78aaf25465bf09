"""Visitors who leave."""

import threading
import time

from qwen_audio_chat.demo.state import Visitors


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
