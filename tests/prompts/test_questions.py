"""Tasks in words and in tags, and tasks on audio of any length."""

import numpy as np

from qwen_audio_chat.audio.audio import Audio
from qwen_audio_chat.engine.sampling import GenerationOptions
from qwen_audio_chat.prompts.chatml import encode_conversation, encode_task
from qwen_audio_chat.prompts.questions import QUESTIONS, question, task_prompt
from qwen_audio_chat.prompts.tags import TaskPrompt
from qwen_audio_chat.transcripts.task_reply import TaskReply, task_message


def test_a_pretrained_model_is_asked_in_tags():
    assert str(task_prompt(question("transcribe"), pretrained=True)) == (
        "<|startoftranscript|><|en|><|transcribe|><|en|><|notimestamps|><|wo_itn|>"
    )
    assert task_prompt(question("transcribe", "zh"), pretrained=True).audio_language == "zh"
    translate = task_prompt(question("translate", "en", "fr"), pretrained=True)
    assert (translate.audio_language, translate.text_language) == ("en", "fr")
    assert task_prompt(question("translate", "en", "en"), pretrained=True).audio_language == "unknown"
    assert task_prompt("Is it <|en|>?", pretrained=True) == TaskPrompt("question", question="Is it <|en|>?")


def test_a_chat_model_is_asked_in_words_but_for_the_times_of_words():
    asked = {name: task_prompt(question(name), pretrained=False) for name in QUESTIONS}
    assert asked.pop("words") == TaskPrompt("transcribe", timestamps=True)
    assert set(asked.values()) == {None}


def test_a_task_is_encoded_without_roles(tiny_tokenizer):
    task = TaskPrompt("caption", "unknown")
    chat = encode_conversation(tiny_tokenizer, [task_message(task, "a.wav")], [[2, 3]])
    text = tiny_tokenizer.decode(chat.input_ids)
    assert text.startswith("<audio>") and text.endswith(f"</audio>{task}")
    assert [(slot.piece, slot.end - slot.start) for slot in chat.slots] == [(0, 2), (1, 3)]
    assert not any(chat.assistant_mask)


def test_a_long_audio_is_asked_about_piece_by_piece(tiny_chat, clip):
    tiny_chat.model.ctc_head = None  # a model that writes the times itself
    audio = np.concatenate([clip(29), 0 * clip(1), clip(12, 880)])
    options, task = GenerationOptions(max_new_tokens=6), TaskPrompt("transcribe", timestamps=True)
    whole = TaskReply(tiny_chat, task, Audio.load(audio), options).finish()
    alone = [tiny_chat.stream([task_message(task, piece)], options).finish() for piece in Audio.load(audio).pieces()]
    assert len(alone) == 2
    assert whole.text == "".join(f"<|0.00|>{reply.text}" for reply in alone)
    zero = tiny_chat.tokenizer.convert_tokens_to_ids("<|0.00|>")
    assert whole.token_ids == [token for reply in alone for token in (zero, *reply.token_ids)]
    assert encode_task(tiny_chat.tokenizer, task)[-1] == zero
