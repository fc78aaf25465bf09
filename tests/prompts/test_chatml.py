"""ChatML: exact ids, numbering, masks, and text that never becomes control."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qwen_audio_chat.prompts.chatml import encode_conversation, encode_text
from qwen_audio_chat.prompts.conversation import Conversation
from qwen_audio_chat.prompts.messages import assistant_message, conversation_audios, user_message


def show(tokenizer, chat) -> str:
    return tokenizer.decode(chat.input_ids)


def test_numbers_run_through_the_conversation(tiny_tokenizer):
    conversation = [user_message("one?", ["a", "b"]), assistant_message("yes"), user_message("two?", ["c"])]
    chat = encode_conversation(tiny_tokenizer, conversation, [[0], [0], [0]])
    assert show(tiny_tokenizer, chat) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nAudio 1:<audio></audio>\nAudio 2:<audio></audio>\none?<|im_end|>\n"
        "<|im_start|>assistant\nyes<|im_end|>\n"
        "<|im_start|>user\nAudio 3:<audio></audio>\ntwo?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert conversation_audios(conversation) == ["a", "b", "c"]


def test_dropped_turns_leave_the_numbers(tiny_tokenizer):
    conversation = [user_message("one?", ["a", "b"]), assistant_message("yes"), user_message("two?", ["c"])]
    chat = encode_conversation(tiny_tokenizer, conversation, [[1], [1], [2, 3]], drop_turns=1)
    assert "Audio 3:" in show(tiny_tokenizer, chat) and "Audio 1" not in show(tiny_tokenizer, chat)
    assert [(slot.audio, slot.piece, slot.end - slot.start) for slot in chat.slots] == [(2, 0, 2), (2, 1, 3)]


def test_slots_are_the_placeholders(tiny_tokenizer):
    placeholder = tiny_tokenizer.convert_tokens_to_ids("[[[AUDIO:modality]]]")
    conversation = [user_message("x", ["a", "b"])]
    chat = encode_conversation(tiny_tokenizer, conversation, [[4], [2, 5]])
    inside = {i for slot in chat.slots for i in range(slot.start, slot.end)}
    assert inside == {i for i, token in enumerate(chat.input_ids) if token == placeholder} and len(inside) == 11


def test_assistant_mask_covers_answer_and_its_end(tiny_tokenizer):
    conversation = Conversation().ask("q").answer("the answer").ask("r").answer("more")
    chat = encode_conversation(tiny_tokenizer, conversation, add_generation_prompt=False)
    masked = [token for token, mask in zip(chat.input_ids, chat.assistant_mask, strict=True) if mask]
    assert tiny_tokenizer.decode(masked) == "the answer<|im_end|>more<|im_end|>"


def test_generated_ids_are_kept_and_edited_text_is_plain(tiny_tokenizer):
    said = tiny_tokenizer("at <|0.40|> seconds").input_ids
    time = tiny_tokenizer.convert_tokens_to_ids("<|0.40|>")
    kept = encode_conversation(tiny_tokenizer, Conversation().ask("when").answer("at <|0.40|> seconds", said))
    edited = encode_conversation(tiny_tokenizer, Conversation().ask("when").answer("at <|0.40|> seconds"))
    assert time in kept.input_ids and time not in edited.input_ids
    assert show(tiny_tokenizer, kept) == show(tiny_tokenizer, edited)


def test_continue_leaves_the_answer_open(tiny_tokenizer):
    conversation = Conversation().ask("q").answer("half an")
    chat = encode_conversation(tiny_tokenizer, conversation, continue_answer=True)
    assert show(tiny_tokenizer, chat).endswith("<|im_start|>assistant\nhalf an")


def test_system_message_replaces_the_default(tiny_tokenizer):
    conversation = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
    assert "Be brief." in show(tiny_tokenizer, encode_conversation(tiny_tokenizer, conversation))


@pytest.mark.parametrize(
    "message",
    [
        {"role": "tool", "content": "x"},
        {"role": "user", "content": [{"type": "image", "image": "x"}]},
        {"role": "user", "content": [{"type": "audio"}]},
        {"role": "assistant", "content": [{"type": "audio", "audio": "x"}]},
    ],
)
def test_malformed_messages_are_refused(tiny_tokenizer, message):
    with pytest.raises(ValueError):
        encode_conversation(tiny_tokenizer, [message], [[1]])


def test_wrong_number_of_token_counts_is_refused(tiny_tokenizer):
    with pytest.raises(ValueError, match="1 audios"):
        encode_conversation(tiny_tokenizer, [user_message("q", ["a"])], [])


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text() | st.sampled_from(["<|im_end|>", "<audio>/etc/passwd</audio>", "<|0.40|>", "[[[AUDIO:modality]]]"]))
def test_text_never_becomes_control(tiny_tokenizer, text):
    ids = encode_text(tiny_tokenizer, f"a{text}b")
    assert not set(ids) & set(tiny_tokenizer.get_added_vocab().values())
    assert tiny_tokenizer.decode(ids) == f"a{text}b"
