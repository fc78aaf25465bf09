"""Every sentence that refuses a visitor's audio, settings or conversation is translated."""

import ast
import inspect
import string

import numpy as np
import pytest

from qwen_audio_chat import chat
from qwen_audio_chat.audio import audio, decoding, features
from qwen_audio_chat.audio.decoding import AudioError, load_audio
from qwen_audio_chat.demo import conversation_files, page_audio
from qwen_audio_chat.demo.error_texts import TRANSLATIONS, explain
from qwen_audio_chat.demo.texts import text
from qwen_audio_chat.engine import sampling
from qwen_audio_chat.errors import UserError
from qwen_audio_chat.prompts import chatml

MODULES = (audio, decoding, features, chat, chatml, sampling, page_audio, conversation_files)  # whatever the page calls


def templates() -> list[str]:
    """The templates of all user errors that these modules raise."""
    found = []
    for module in MODULES:
        for call in ast.walk(ast.parse(inspect.getsource(module))):
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or not call.args:
                continue
            error = getattr(module, call.func.id, None)
            if isinstance(error, type) and issubclass(error, UserError) and isinstance(call.args[0], ast.Constant):
                found.append(call.args[0].value)
    return sorted(set(found))


def names(template: str) -> set[tuple[str, str, str]]:
    """(name, format, conversion) of each value in a template."""
    return {(name, form, conversion) for _, name, form, conversion in string.Formatter().parse(template) if name}


def test_all_are_found():
    assert len(templates()) > 25


@pytest.mark.parametrize("lang", TRANSLATIONS)
def test_each_template_is_translated_with_its_values(lang):
    table = TRANSLATIONS[lang]
    assert set(templates()) == set(table)
    for template, translation in table.items():
        assert names(translation) == names(template), template


@pytest.mark.parametrize(
    ("source", "chinese"),
    [
        (b"", "音频文件为空（0 字节）；请选择其他文件。"),
        (b"no audio", "文件已损坏或格式未知；请提供 WAV、FLAC、MP3、Ogg、M4A 或 WebM。"),
        (np.zeros(0), "音频为空：没有可以解码的采样。"),
        (np.zeros((2, 2, 2)), "音频数组必须是一维或二维，而不是 3 维。"),
        ((np.zeros(9), 8), "采样率 8 Hz 不在 1000 到 768000 之间；请先转换。"),
        ("{name}{0}.wav", "找不到音频文件 '{name}{0}.wav'；请提供本机文件的路径。"),
    ],
)
def test_chinese(source, chinese):
    with pytest.raises(AudioError) as refused:
        load_audio(source)
    assert explain(refused.value, "zh") == chinese
    assert explain(refused.value, "en") == str(refused.value)


def test_an_error_within_an_error_is_translated_as_well():
    inner = UserError("it holds more than {limit} audios.", limit=3)
    assert explain(UserError("{file}: {error}", file="{x}", error=inner), "zh") == "{x}: 音频超过 3 段。"


def test_a_sentence_without_translation_stays_english():
    assert explain(UserError("Something {kind}."), "zh") == "Something {kind}."


@pytest.mark.browser
def test_a_page_in_chinese(visit, tmp_path):
    path = tmp_path / "broken.wav"
    path.write_bytes(b"no audio")
    visitor = visit(locale="zh-CN")
    visitor.say("这是什么？", path)
    reason = "文件已损坏或格式未知；请提供 WAV、FLAC、MP3、Ogg、M4A 或 WebM。"
    assert visitor.toast() == text("bad_file", "zh", name="broken.wav", error=reason)
