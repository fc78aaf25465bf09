"""Every sentence that refuses a visitor's audio or conversation is told in the visitor's language."""

import ast
import inspect
import re

import pytest

from qwen_audio_chat import chat as pipeline
from qwen_audio_chat.audio import decoding as audio_decoding
from qwen_audio_chat.audio import features as audio
from qwen_audio_chat.audio.decoding import AudioError
from qwen_audio_chat.demo import conversation_files
from qwen_audio_chat.demo.error_texts import explain
from qwen_audio_chat.demo.texts import text

REFUSALS = {audio: "AudioError", audio_decoding: "AudioError", pipeline: "ChatError", conversation_files: "ValueError"}
FILLED = "7.5 'x'"


def sentences() -> list[str]:
    """What these modules raise, with something filled in."""
    found = []
    for module, kind in REFUSALS.items():
        for call in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") == kind:
                match call.args[0]:
                    case ast.Constant(value):
                        found.append(value)
                    case ast.JoinedStr(parts):
                        found.append("".join(part.value if isinstance(part, ast.Constant) else FILLED
                                             for part in parts))  # fmt: skip
    return found


def test_all_are_found():
    assert len(sentences()) > 20


@pytest.mark.parametrize("sentence", sentences())
def test_chinese(sentence):
    chinese = explain(ValueError(sentence), "zh")
    assert re.search("[\u4e00-\u9fff]", chinese)
    assert chinese.count(FILLED) == sentence.count(FILLED)
    assert explain(ValueError(sentence), "en") == sentence


def test_a_sentence_without_translation_stays():
    assert explain(ValueError("Something new."), "zh") == "Something new."


def test_braces_in_a_name_are_harmless():
    with pytest.raises(AudioError) as refused:
        audio_decoding.load_audio("{name}{0}.wav")
    assert explain(refused.value, "zh") == "找不到音频文件 '{name}{0}.wav'；请提供本机文件的路径。"


def test_a_page_in_chinese(visit, tmp_path):
    path = tmp_path / "broken.wav"
    path.write_bytes(b"no audio")
    visitor = visit(locale="zh-CN")
    visitor.say("这是什么？", path)
    reason = "文件已损坏或格式未知；请提供 WAV、FLAC、MP3、Ogg、M4A 或 WebM。"
    assert visitor.toast() == text("bad_file", "zh", name="broken.wav", error=reason)
