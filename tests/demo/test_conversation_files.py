"""Export and import, without a browser."""

import base64
import json
from pathlib import Path

import gradio as gr
import pytest

from qwen_audio_chat.audio.audio import Audio
from qwen_audio_chat.demo import conversation_files
from qwen_audio_chat.demo.edit_handlers import EditHandlers
from qwen_audio_chat.demo.page_audio import page_audios, question_message
from qwen_audio_chat.demo.page_state import PageState
from qwen_audio_chat.demo.texts import text
from qwen_audio_chat.errors import UserError
from qwen_audio_chat.prompts.messages import message_text

REQUEST = gr.Request(session_hash="somebody", headers={})


@pytest.fixture
def page(tiny_chat):
    page = PageState(tiny_chat)
    yield page
    page.visitors.forget_all()


@pytest.fixture
def visitor(page):
    return page.visitors.rejoin("somebody", "")


@pytest.fixture
def popups(monkeypatch):
    shown = []
    for kind in ("Warning", "Info"):
        monkeypatch.setattr(gr, kind, lambda message, **_: shown.append(message))
    return shown


def document(*messages: dict) -> str:
    """A file with these messages."""
    return json.dumps({"format": conversation_files.FORMAT, "version": 1, "messages": messages})


def text_message(role: str, text: str) -> dict:
    return {"role": role, "content": [{"type": "text", "text": text}]}


def audio_message(role: str, **part) -> dict:
    return {"role": role, "content": [{"type": "audio", **part}]}


def test_an_export_can_be_imported(page, visitor, clip, popups):
    parts = [visitor.add_audio(name, Audio(clip(seconds))) for name, seconds in (("a.wav", 1.0), ("b.wav", 40.0))]
    visitor.conversation.append(question_message("Which <one>?", parts))
    visitor.conversation.answer("The second.")
    before = [audio.audio.waveform for audio in page_audios(visitor.conversation[0])]
    path = conversation_files.write(visitor, "json", "en")
    other = page.visitors.rejoin("other", "")
    EditHandlers(page).load(str(path), gr.Request(session_hash="other", headers={}))
    assert popups == [text("imported", "en")] and other.job is None and other.in_sync
    question, answer = other.conversation
    assert [message["role"] for message in other.conversation] == ["user", "assistant"]
    assert (question["content"][-1]["text"], answer["content"]) == ("Which <one>?", "The second.")
    audios = page_audios(question)
    assert [(audio.name, audio.seconds) for audio in audios] == [("a.wav", 1.0), ("b.wav", 40.0)]
    assert all((audio.audio.waveform == waveform).all() for audio, waveform in zip(audios, before, strict=True))
    assert all(audio.file.parent == other.folder != visitor.folder for audio in audios)
    markdown = conversation_files.to_markdown(other.conversation, "en")
    assert "- Audio 2: b.wav (0:40)" in markdown and "Which <one>?" in markdown


def test_an_export_of_version_1_0_can_be_imported(visitor):
    path = Path(__file__).with_name("exported_by_1_0.json")
    conversation = conversation_files.read(path, visitor, visitor.begin_reading())
    assert [(message["role"], message_text(message)) for message in conversation] == [
        ("user", "Which <sound> is it?"),
        ("assistant", "A tone, from <|0.00|> to <|0.20|>."),
        ("user", "Danke, 谢谢"),
        ("assistant", "You are welcome."),
    ]
    [audio] = page_audios(conversation[0])
    assert audio.name == "tone & <b>.wav" and audio.seconds == 0.2 and audio.audio.waveform.max() > 0.25


def test_an_export_with_parts_of_a_later_version_can_be_imported(visitor, tmp_path, clips):
    wav = base64.b64encode(clips["low"].read_bytes()).decode()
    content = [
        {"type": "audio", "name": "n" * 300, "wav": wav, "extra": 1},
        {"type": "video", "frames": []},
        {"type": "text", "text": "What"},
        {"type": "text", "text": " is it?"},
    ]
    path = tmp_path / "talk.json"
    path.write_text("\ufeff" + document({"role": "user", "content": content}), encoding="utf-8")
    [message] = conversation_files.read(path, visitor, visitor.begin_reading())
    [audio] = page_audios(message)
    assert message["content"][-1]["text"] == "What is it?" and audio.name == "n" * 200


DAMAGED = "a part of it is missing or damaged."


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("no json", DAMAGED),
        ("[1, 2]", DAMAGED),
        ('{"messages": []}', DAMAGED),
        ("[" * 100_000, DAMAGED),
        (document({"role": "user"}), DAMAGED),
        (document(audio_message("user", name="a")), DAMAGED),
        (document(audio_message("user", name="a", wav="?")), DAMAGED),
        (document(text_message("user", "x")).replace("x", "\\ud800"), DAMAGED),
        ('{"format": "other"}', "it is of another format."),
        (document(), "it holds no messages."),
        (document(text_message("system", "Obey.")), 'a role must be "user" or "assistant".'),
        (document(*[text_message("user", "x")] * 1001), "it holds more than 1000 messages."),
        (document(text_message("user", "x" * 20_001)), "a question in it has more than 20000 characters."),
        (document(*[audio_message("user", name="a", wav="")] * 101), "it holds more than 100 audios."),
        (document(audio_message("assistant", name="a", wav="")), "only a user's message can hold audio."),
    ],
    ids=range(15),
)
def test_what_is_wrong_with_a_file(visitor, tmp_path, content, sentence):
    path = tmp_path / "wrong.json"
    path.write_text(content)
    with pytest.raises(UserError) as refused:
        conversation_files.read(path, visitor, visitor.begin_reading())
    assert str(refused.value) == sentence


def test_a_wrong_file_changes_nothing(page, visitor, tmp_path, popups):
    visitor.conversation.ask("Hello.").answer("Hi.")
    path = tmp_path / "wrong.json"
    path.write_text("no json")
    EditHandlers(page).load(str(path), REQUEST)
    assert popups == [text("bad_import", "en", error="a part of it is missing or damaged.")]
    assert len(visitor.conversation) == 2 and visitor.job is None


def test_a_deletion_while_a_file_is_imported_keeps_nothing(page, visitor, tmp_path, clips, monkeypatch, popups):
    wav = base64.b64encode(clips["low"].read_bytes()).decode()
    path = tmp_path / "talk.json"
    path.write_text(document(audio_message("user", name="a", wav=wav)))
    add_audio = visitor.add_audio
    monkeypatch.setattr(visitor, "add_audio", lambda *arguments: visitor.forget() or add_audio(*arguments))
    EditHandlers(page).load(str(path), REQUEST)
    assert not visitor.conversation and not visitor.folder.exists() and not popups and visitor.job is None
