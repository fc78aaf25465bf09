"""Which requests are answered as a task in tags, and long speech in parts."""

import threading
from itertools import pairwise

import pytest

from qwen_audio_chat.answering import answer, subject_audio
from qwen_audio_chat.audio.cutting import split_audio
from qwen_audio_chat.engine.sampling import GenerationOptions
from qwen_audio_chat.prompts.conversation import Conversation
from qwen_audio_chat.prompts.questions import QUESTIONS, question
from qwen_audio_chat.prompts.tags import parse_words
from qwen_audio_chat.transcripts.task_reply import TaskReply, task_message, without_times

SHORT = GenerationOptions(max_new_tokens=4)


@pytest.fixture
def without_letters(tiny_chat, monkeypatch):
    monkeypatch.setattr(tiny_chat.model, "ctc_head", None)
    return tiny_chat


def asked(words: str, *audios) -> Conversation:
    return Conversation().ask(words, audios)


def test_a_model_that_spells_transcribes_long_speech_in_parts(tiny_chat, clip):
    speech = clip(22.0)
    reply = answer(tiny_chat, asked(question("transcribe"), speech), SHORT).finish()
    parts = split_audio(speech, tiny_chat.transcript_seconds)
    each = [tiny_chat.stream([task_message(QUESTIONS["transcribe"].tags, part)], SHORT).finish() for part in parts]
    assert len(parts) >= 3 and reply.text == " ".join(part.text for part in each)
    assert tiny_chat.tokenizer.decode(reply.token_ids) == reply.text
    assert reply.notices == [f"The audio is 22 s long and was heard in {len(parts)} pieces."]


def test_the_parts_can_be_read_as_they_come(tiny_chat, clip):
    reply = answer(tiny_chat, asked(question("transcribe"), clip(12.0)), SHORT)
    seen = [reply.text for _ in reply]
    assert len(seen) > 2 and all(later.startswith(earlier) for earlier, later in pairwise(seen))


@pytest.mark.parametrize(
    ("words", "seconds"),
    [("Transcribe the audio.", 3.0), ("Which sound is in the audio?", 12.0)],
    ids=["short", "other"],
)
def test_everything_else_is_a_conversation(tiny_chat, clip, words, seconds):
    conversation = asked(words, clip(seconds))
    reply = answer(tiny_chat, conversation, SHORT)
    assert not isinstance(reply, TaskReply)
    assert reply.finish().text == tiny_chat.stream(conversation, SHORT).finish().text


def test_a_model_without_letters_hears_long_speech_as_a_whole(without_letters, clip):
    assert without_letters.transcript_seconds == 30
    assert not isinstance(answer(without_letters, asked(question("transcribe"), clip(12.0)), SHORT), TaskReply)


def test_words_of_long_speech_have_the_times_of_the_whole(tiny_chat, clip):
    options = GenerationOptions(max_new_tokens=12)
    reply = answer(tiny_chat, asked(question("words"), clip(32.0)), options).finish()
    assert reply.text.count("<|0.00|>") == 2  # once for each 30 s, whatever the parts
    words = parse_words(reply.text)
    assert words and max(word.end for word in words) > tiny_chat.transcript_seconds


def test_a_transcript_that_is_spelled_nowhere_has_no_times(tiny_chat, clip, monkeypatch):
    monkeypatch.setattr(tiny_chat, "time_words", lambda *_: [])
    untimed = task_message(without_times(QUESTIONS["words"].tags), clip(2.0))
    said = tiny_chat.stream([untimed], SHORT).finish().text
    timed = answer(tiny_chat, asked(question("words"), clip(2.0)), SHORT).finish()
    assert timed.text == said != ""
    assert tiny_chat.tokenizer.decode(timed.token_ids) == said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "seconds", "parts", "into"),
    [("transcribe", 22.0, 0, 1), ("transcribe", 22.0, 2, 1), ("transcribe", 45.0, 4, 2), ("words", 45.0, 0, 0)],
    ids=["first part", "between parts", "later piece", "times"],
)
def test_what_was_stopped_goes_on_as_if_it_never_was(tiny_chat, clip, task, seconds, parts, into):
    conversation = asked(question(task), clip(seconds))
    whole = answer(tiny_chat, conversation, SHORT).finish()
    cancel = threading.Event()
    stopped = answer(tiny_chat, conversation, SHORT, cancel=cancel)
    for _ in stopped:
        if stopped.progress.parts >= parts and len(stopped.text) >= stopped.progress.characters + into:
            cancel.set()
    assert stopped.finish_reason == "cancelled" and stopped.progress.parts < whole.progress.parts
    told, ids = stopped.text[: stopped.progress.characters], stopped.token_ids[: stopped.progress.tokens]
    assert whole.text.startswith(told)
    kept = {"role": "assistant", "content": told, "token_ids": ids, "progress": stopped.progress}
    rest = answer(tiny_chat, [*conversation, kept], SHORT).finish()
    assert told + rest.text == whole.text and ids + rest.token_ids == whole.token_ids
    assert rest.progress == whole.progress and rest.finish_reason == whole.finish_reason


@pytest.mark.parametrize(
    ("text", "latest", "number"),
    [
        ("What is said?", 3, 3),
        ("When is it said in Audio 2?", 3, 2),
        ("When in Audio 9?", 2, 2),
        ("What is said in audio 1?", 3, 1),
        ("Compare audio 4 and audio 2", 3, 2),
        ("音频2说了什么？", 2, 2),
        ("Hello", 0, None),
        ("audio 7", 2, 2),
    ],
)
def test_a_question_is_about_the_audio_it_names_or_the_latest(text, latest, number):
    assert subject_audio(text, latest) == number


def test_times_are_found_for_the_audio_that_is_meant_among_several(tiny_chat, clip):
    conversation = asked("What is in these?", clip(1.0), clip(3.0)).answer("Tones.").ask(question("words"))
    reply = answer(tiny_chat, conversation, SHORT)
    assert isinstance(reply, TaskReply) and reply.finish().segments == []
    alone = answer(tiny_chat, asked(question("words"), clip(3.0)), SHORT).finish()
    assert reply.text == alone.text
