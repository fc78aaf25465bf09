"""Conversations as the page shows them, without a browser."""

from pathlib import Path

import pytest

from qwen_audio_chat.audio.audio import Audio
from qwen_audio_chat.demo.page_audio import PageAudio, number_audios
from qwen_audio_chat.demo.render import chat_messages, guard, times_card, unguard
from qwen_audio_chat.demo.visitors import Visitor
from qwen_audio_chat.prompts.conversation import Conversation

TIMED_WORDS = "<|0.00|><|sil|><|0.40|>please<|0.80|><b><|1.10|><|sil|><|2.00|>"


@pytest.fixture
def visitor(tiny_chat, tmp_path, clip):
    """Somebody with two audios of one question."""
    visitor = Visitor(tiny_chat, tmp_path / "visitor")
    parts = [visitor.add_audio(f"<{name}>.wav", Audio(clip(2.0))) for name in ("low", "high")]
    visitor.conversation.append({"role": "user", "content": [*parts, {"type": "text", "text": "Is Audio 1 <lower>?"}]})
    return visitor


@pytest.mark.parametrize("plain", ["<b>x</b> & <i>", "a < b && c", "&lt;b&gt;", "<!-- -->", "2 < 3 > 1"])
def test_guarded_text_comes_back(plain):
    assert unguard(guard(plain)) == plain


def test_a_question_shows_its_audios_and_escapes_names(visitor):
    [question] = chat_messages(visitor, "en")
    *cards, written = question["content"]
    assert written == guard("Is Audio 1 <lower>?")
    assert ["Audio 1" in card.value for card in cards] == [True, False]
    assert "&lt;low&gt;.wav" in cards[0].value and "<low>" not in cards[0].value


def test_an_answer_shows_its_words_its_ending_and_a_way_on(visitor):
    visitor.conversation.append(
        {"role": "assistant", "content": TIMED_WORDS, "finish_reason": "length", "notices": ["Audio <1>"]}
    )
    _, answer = chat_messages(visitor, "en")
    readable, times, notices = answer["content"]
    assert readable == guard("please <b>")
    assert times.value.count("qa-piece") == 2 and "&lt;b&gt;" in times.value
    assert "The answer reached its length limit" in notices.value and "Audio &lt;1&gt;" in notices.value
    assert answer["options"] == [{"value": "continue", "label": "Continue"}]
    assert "options" not in chat_messages(visitor, "en", partial=" more")[-1], "while it is being continued"


def test_an_answer_on_its_way_and_a_note(visitor):
    assert chat_messages(visitor, "en", partial="")[-1] == {"role": "assistant", "content": "…"}
    visitor.note = "<No> answer"
    assert "&lt;No&gt; answer" in chat_messages(visitor, "en")[-1]["content"].value


def test_times_beyond_the_end_are_not_played(clip):
    audio = Audio(clip(1.0))
    audio.file = Path("tone.wav")
    [card] = times_card(TIMED_WORDS, PageAudio(1, "tone", audio, Path("tone.png")), "en")
    assert "please" in card and "&lt;b&gt;" in card
    audio.num_samples = 8000
    [card] = times_card(TIMED_WORDS, PageAudio(1, "tone", audio, Path("tone.png")), "en")
    assert 'data-end="0.50"' in card and card.count("qa-piece") == 1


def test_audios_are_numbered_through_the_conversation(clip):
    talk = Conversation().ask("Which?", [clip(1.0), clip(1.1)]).answer("One.").ask("And audio 1?").answer("It.")
    talk.ask("This?", [clip(1.2)])
    numbered = [([a.number for a in audios], subject and subject.number) for _, audios, subject in number_audios(talk)]
    assert numbered == [([1, 2], 2), ([], 2), ([], 1), ([], 1), ([3], 3)]
