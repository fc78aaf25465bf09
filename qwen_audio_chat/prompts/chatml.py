"""ChatML: conversations to token ids. The only place that knows the chat format (arXiv 2311.07919, section 2.3).

A conversation is a list of messages (see `messages`). Text never becomes control: whatever anyone typed is encoded
without special tokens, and only this module inserts them. An assistant's turn with `token_ids` keeps the ids that the
model generated. A user's message with a task asks in the format of pretraining instead: its audio, then tags.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerFast

from ..errors import UserError
from .messages import Message, content_parts, conversation_audios
from .tags import TaskPrompt, TimedWord
from .tokenizer import AUDIO_END, AUDIO_PLACEHOLDER, AUDIO_START, IM_END, IM_START, plain_tokenizer, token_ids

DEFAULT_SYSTEM = "You are a helpful assistant."
AUDIO_LABEL = "Audio {number}:"


@dataclass
class AudioSlot:
    """Where one piece of one audio stands: ids `start` to `end` (exclusive), between `<audio>` and `</audio>`."""

    start: int
    end: int
    audio: int  # index of the audio in the conversation, from 0
    piece: int  # index of the piece of at most 30 s within the audio


@dataclass
class EncodedChat:
    """A conversation as ids. `assistant_mask` marks what the assistant says, including its `<|im_end|>`."""

    input_ids: list[int] = field(default_factory=list)
    assistant_mask: list[bool] = field(default_factory=list)
    slots: list[AudioSlot] = field(default_factory=list)

    def extend(self, ids: Sequence[int], assistant: bool = False) -> None:
        """Append ids; `assistant` marks them as what the assistant says."""
        self.input_ids.extend(ids)
        self.assistant_mask.extend([assistant] * len(ids))


def encode_text(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """Encode plain text: no special id comes out, whatever the text says."""
    return plain_tokenizer(tokenizer).encode(text, add_special_tokens=False).ids


def encode_audio(tokenizer: PreTrainedTokenizerFast, tokens: int) -> list[int]:
    """Ids of one clip: `<audio>`, a placeholder per frame of 40 ms, `</audio>`."""
    start, pad, end = token_ids(tokenizer, AUDIO_START, AUDIO_PLACEHOLDER, AUDIO_END)
    return [start, *[pad] * tokens, end]


def encode_task(tokenizer: PreTrainedTokenizerFast, task: TaskPrompt) -> list[int]:
    """Ids of a task in tags; a question inside it stays plain text.

    Raises:
        UserError: the tokenizer lacks one of the tags.
    """
    ids = []
    for piece, is_tag in task.pieces():
        ids += token_ids(tokenizer, piece) if is_tag else encode_text(tokenizer, piece)
    if None in ids or (tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids):
        raise UserError("This model's tokenizer lacks a tag of {task}.", task=str(task))
    return ids


def encode_timed_words(tokenizer: PreTrainedTokenizerFast, words: Sequence[TimedWord]) -> list[int]:
    """Ids of words between time tokens, such as `<|sil|><|0.56|>one<|0.88|>two<|1.20|>` after the prompt's `<|0.00|>`.

    Times are rounded to the grid of the tokenizer's time tokens.
    """
    has_fine_grid = token_ids(tokenizer, "<|0.01|>")[0] not in (None, tokenizer.unk_token_id)
    step = 0.01 if has_fine_grid else 0.04
    ids, now = [], 0

    def tag(name: str) -> int:
        return token_ids(tokenizer, f"<|{name}|>")[0]

    for word in words:
        start, end = max(now, round(word.start / step)), max(now, round(word.end / step))
        if start > now:
            ids += [tag("sil"), tag(f"{start * step:.2f}")]
        now = max(start, end)
        ids += [*encode_text(tokenizer, word.word), tag(f"{now * step:.2f}")]
    return ids


def encode_conversation(
    tokenizer: PreTrainedTokenizerFast,
    messages: Sequence[Message],
    audio_tokens: Sequence[Sequence[int]] = (),
    *,
    add_generation_prompt: bool = True,
    drop_turns: int = 0,
    continue_answer: bool = False,
) -> EncodedChat:
    """Encode a conversation; or, where its last message has a task, that task and the only audio, without roles.

    Args:
        messages: the whole conversation; one without a system message gets the default one.
        audio_tokens: for each audio of the conversation, the tokens of each of its pieces of at most 30 s.
        add_generation_prompt: end with the opening of an assistant's turn.
        drop_turns: leave out this many of the oldest user turns with their answers (the context is full);
            the audios of the others keep their numbers.
        continue_answer: leave the last message, an assistant's, open, so that the model continues it.

    Raises:
        UserError: a message is malformed, or a task isn't about exactly one audio.
        ValueError: `audio_tokens` doesn't match the audios.
    """
    if len(audio_tokens) != (count := len(conversation_audios(messages))):
        raise ValueError(f"The conversation has {count} audios, but token counts were given for {len(audio_tokens)}.")
    if messages and (task := messages[-1].get("task")) is not None:
        if count != 1:
            raise UserError("A task in tags is about one audio, not {count}.", count=count)
        chat = EncodedChat()
        _extend_audio(chat, tokenizer, 0, audio_tokens[0])
        chat.extend(encode_task(tokenizer, task))
        return chat
    im_start, im_end = token_ids(tokenizer, IM_START, IM_END)
    newline = encode_text(tokenizer, "\n")
    chat = EncodedChat()

    def open_turn(role: str) -> None:
        chat.extend([*(newline if chat.input_ids else []), im_start, *encode_text(tokenizer, role), *newline])

    messages = list(messages)
    if not messages or messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": DEFAULT_SYSTEM})
    turn = audio = 0
    for position, message in enumerate(messages):
        turn += message["role"] == "user"
        parts = content_parts(message)
        if message["role"] != "system" and turn <= drop_turns:
            audio += sum(part["type"] == "audio" for part in parts)
            continue
        open_turn(message["role"])
        is_assistant = message["role"] == "assistant"
        if is_assistant and (generated := message.get("token_ids")) is not None:
            chat.extend(generated, assistant=True)
        else:
            audio = _extend_parts(chat, tokenizer, parts, audio, audio_tokens, is_assistant)
        if continue_answer and position == len(messages) - 1:
            return chat
        chat.extend([im_end], assistant=is_assistant)
    if add_generation_prompt:
        open_turn("assistant")
    return chat


def _extend_parts(chat, tokenizer, parts, audio, audio_tokens, is_assistant) -> int:
    """Append a message's parts and return the index of the next audio.

    Text between two clips is encoded in one go, line ends included, since the tokenizer merges across parts.
    """
    pending = ""
    for part in parts:
        if part["type"] == "text":
            pending += part["text"]
            continue
        pending += AUDIO_LABEL.format(number=audio + 1)
        chat.extend(encode_text(tokenizer, pending), is_assistant)
        _extend_audio(chat, tokenizer, audio, audio_tokens[audio])
        pending = "\n"
        audio += 1
    chat.extend(encode_text(tokenizer, pending), is_assistant)
    return audio


def _extend_audio(chat: EncodedChat, tokenizer, audio: int, pieces: Sequence[int]) -> None:
    """Append an audio, each of its pieces with that many tokens."""
    for piece, tokens in enumerate(pieces):
        start = len(chat.input_ids) + 1
        chat.extend(encode_audio(tokenizer, tokens))
        chat.slots.append(AudioSlot(start, start + tokens, audio, piece))
