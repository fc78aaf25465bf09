"""Too much of something: files, minutes, bytes, words of context, visitors. One clear sentence each."""

import base64
import io
import json
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
import soundfile
from gradio.route_utils import delete_files_created_by_app
from gradio.utils import get_upload_folder

from qwen_audio_chat.audio import audio
from qwen_audio_chat.audio.decoding import load_audio
from qwen_audio_chat.demo import conversation_files, page_state
from qwen_audio_chat.demo.api_handlers import ApiHandlers
from qwen_audio_chat.demo.edit_handlers import EditHandlers
from qwen_audio_chat.demo.page import build_demo
from qwen_audio_chat.demo.page_state import PageState
from qwen_audio_chat.demo.texts import text
from qwen_audio_chat.errors import UserError
from qwen_audio_chat.prompts.conversation import Conversation
from qwen_audio_chat.prompts.messages import message_text


@pytest.fixture
def tone(tmp_path):
    """Makes a file: `tone(name, seconds)`."""

    def make(name: str, seconds: float):
        t = np.arange(round(16000 * seconds)) / 16000
        soundfile.write(tmp_path / name, 0.3 * np.sin(2 * np.pi * 330 * t), 16000)
        return tmp_path / name

    return make


@pytest.mark.browser
@pytest.mark.slow
def test_twenty_files_at_once_and_not_one_more(visit, tone):
    visitor = visit()
    files = [tone(f"{number}.wav", 0.3 + number / 100) for number in range(1, 22)]
    visitor.say("Which is the longest?", *files)
    assert visitor.toast() == "At most 20 audios go into one message."
    assert visitor.page.input_value("#qa-box textarea") == "Which is the longest?", "the message is kept"
    visitor.press("#qa-box .delete-button, #qa-box button[aria-label='Remove File'] >> nth=0")
    visitor.page.wait_for_function("document.querySelectorAll('#qa-box .thumbnail-item').length === 20")
    visitor.page.press("#qa-box textarea", "Enter")
    visitor.wait_answer()
    assert visitor.page.locator(".qa-clip").count() == 20


@pytest.mark.browser
@pytest.mark.slow
def test_two_hours_are_refused_in_one_sentence(visit, clips, tmp_path):
    visitor = visit()
    visitor.say("What is it?", clips["low"])
    answer = visitor.wait_answer()
    soundfile.write(tmp_path / "long.flac", np.zeros(2 * 3600 * 8000, dtype=np.int16), 8000)
    visitor.say("And this?", tmp_path / "long.flac")
    assert visitor.toast() == (
        "long.flac: This is 2:00:00 of audio, but the model holds about 1:22: use a shorter part."
    )
    assert visitor.answers() == [answer]
    assert visitor.page.input_value("#qa-box textarea") == "And this?"


@pytest.mark.browser
@pytest.mark.slow
def test_a_file_of_500_mb_never_gets_in(visit, clips, tmp_path):
    visitor = visit()
    with (tmp_path / "huge.wav").open("wb") as file:
        file.truncate(500 * 2**20)
    visitor.page.set_input_files("#qa-box input[type=file]", str(tmp_path / "huge.wav"))
    assert "256" in visitor.toast()
    assert visitor.page.locator("#qa-box .thumbnail-item").count() == 0
    visitor.say("What is it?", clips["low"])
    visitor.wait_answer()


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize(
    ("locale", "split", "full"),
    [
        ("en-US", "Audio 1 lasts 0:40 and was heard in 2 pieces.", "The context is full:"),
        ("zh-CN", "音频 1 长 0:40，已分为 2 段聆听。", "上下文已满："),
    ],
)
def test_what_was_split_and_what_left_the_context_is_said(visit, tone, locale, split, full):
    visitor = visit(locale=locale)
    visitor.say("What is it?", tone("one.wav", 40))
    visitor.wait_answer()
    assert visitor.page.locator(".qa-note").all_inner_texts()[-1] == split
    visitor.say("And this?", tone("two.wav", 41))
    visitor.wait_answer(2)
    assert any(note.startswith(full) for note in visitor.page.locator(".qa-note").all_inner_texts())
    assert visitor.page.locator(".qa-clip").count() == 2, "the page keeps what the model forgets"


@pytest.mark.browser
@pytest.mark.slow
def test_the_place_in_the_queue_is_shown_and_a_full_queue_says_so(visit, clips, page_chat, monkeypatch):
    one, two, three = visit(), visit(), visit(locale="zh-CN")
    monkeypatch.setattr(page_state, "MAX_WAITING", 2)
    page_chat.pause = 0.2
    one.say("Tell me all.", clips["low"])
    one.page.wait_for_selector("#qa-box .stop-button")
    two.say("And me.", clips["high"])
    two.page.wait_for_selector("#qa-chat >> text=queue: 1/1")
    two.page.wait_for_selector("#qa-box .stop-button")
    three.say("我呢？", clips["high"])
    assert three.toast() == "等待的访客太多；您的消息已保留，请一分钟后重试。"
    assert three.page.input_value("#qa-box textarea") == "我呢？"
    page_chat.pause = 0.0
    one.wait_answer()
    two.wait_answer()
    three.page.press("#qa-box textarea", "Enter")
    three.wait_answer()


@pytest.mark.parametrize("full", [{"draining": True}, {"limit": 0}], ids=["draining", "full queue"])
def test_retry_edit_and_continue_keep_the_answer_when_no_other_can_be_made(page_chat, monkeypatch, full):
    page = PageState(page_chat)
    page.draining = full.get("draining", False)
    monkeypatch.setattr(page_state, "MAX_WAITING", full.get("limit", 40))
    request = gr.Request(session_hash="somebody", headers={})
    visitor, _ = page.visitor(request)
    visitor.conversation, visitor.in_sync = Conversation().ask("Why?").answer("Because."), True
    editing = EditHandlers(page)
    editing.retry(request), editing.continue_answer(request)
    editing.edit(gr.EditData(None, {"index": 0, "value": "How?", "previous_value": "Why?"}), request)
    assert [message_text(message) for message in visitor.conversation] == ["Why?", "Because."]
    assert not visitor.is_answering


def test_api_requests_are_finished_and_new_ones_refused_once_the_server_drains(page_chat, clips):
    page = PageState(page_chat)
    with page.api_request():
        assert page.num_answering() == 1
    assert page.num_answering() == 0
    page.draining = True
    with pytest.raises(gr.Error, match=text("draining", "en")):
        ApiHandlers(page).ask([str(clips["low"])], "What is it?")


def test_pictures_of_the_gallery_outlive_the_uploads(page_chat, clips):
    demo = build_demo(page_chat, examples=clips["low"].parent)
    pictures = list((Path(get_upload_folder()) / "examples").glob("*.png"))
    delete_files_created_by_app(demo, age=0)
    assert pictures and all(picture.exists() for picture in pictures)


def silence(seconds: float) -> bytes:
    """A small file of long silence."""
    file = io.BytesIO()
    soundfile.write(file, np.zeros(int(seconds * 16000), np.int16), 16000, format="FLAC")
    return file.getvalue()


def test_small_files_of_long_silence_are_decoded_only_while_they_fit(page_chat, tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(audio, "load_audio", lambda source, **limits: read.append(source) or load_audio(source))
    page = PageState(page_chat)
    visitor, _ = page.visitor(gr.Request(session_hash="somebody", headers={}))
    sound = {"type": "audio", "name": "a", "wav": base64.b64encode(silence(600)).decode()}
    message = {"role": "user", "content": [sound] * 50}
    path = tmp_path / "bomb.json"
    path.write_text(json.dumps({"format": conversation_files.FORMAT, "messages": [message] * 2}))
    with pytest.raises(UserError, match="use a shorter part"):
        conversation_files.read(path, visitor, visitor.begin_reading())
    assert len(read) <= 2
    read.clear()
    with pytest.raises(gr.Error, match="use a shorter part"):
        ApiHandlers(page).listen(" ".join(["data:audio/flac;base64," + sound["wav"]] * 20), "What?")
    assert len(read) <= 2 and page.num_answering() == 0


@pytest.mark.parametrize(
    "messages", ["1" * 5000, '[{"role": "user", "content": [{"type": "audio", "name": "a", "wav": "\u00e9"}]}]']
)
def test_a_damaged_conversation_is_refused_in_one_sentence(page_chat, tmp_path, messages):
    visitor, _ = PageState(page_chat).visitor(gr.Request(session_hash="somebody", headers={}))
    path = tmp_path / "damaged.json"
    path.write_text(f'{{"format": "{conversation_files.FORMAT}", "messages": {messages}}}', encoding="utf-8")
    with pytest.raises(UserError, match="^a part of it is missing or damaged.$"):
        conversation_files.read(path, visitor, visitor.begin_reading())
