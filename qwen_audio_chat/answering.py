"""`answer`: which audio a question is about, and how to ask the model; for the page, the commands and programs."""

import re
import threading
from collections.abc import Sequence

from .audio.audio import Audio
from .chat import AudioChat
from .engine.sampling import GenerationOptions
from .engine.sessions import Session
from .prompts.messages import Message, Progress, conversation_audios, message_text
from .prompts.questions import QUESTIONS, task_prompt, wants_transcript
from .reply import Reply
from .transcripts.task_reply import TaskReply


def answer(
    chat: AudioChat,
    conversation: Sequence[Message],
    options: GenerationOptions = GenerationOptions(),  # noqa: B008 - frozen
    *,
    session: Session | None = None,
    cancel: threading.Event | None = None,
) -> Reply:
    """Answer the last message: as a conversation (`AudioChat.stream`), or as a task in tags about one audio.

    A pretrained model knows only tags. A model with a CTC head gives the times of words by alignment, and transcribes
    longer speech in parts of `chat.transcript_seconds`. Where the last message is the assistant's, the answer is
    continued; one that was stopped between parts has `progress`, and holds nothing after it.

    Raises:
        ChatError, AudioError: while reading, as `AudioChat.stream`; AudioError here, if an audio can't be decoded.
    """
    messages, progress = list(conversation), Progress()
    if messages and (stopped_at := messages[-1].get("progress")):
        progress = stopped_at
        messages.pop()
    if messages and messages[-1]["role"] == "user":
        question = messages[-1]
        audios = conversation_audios(messages)
        number = subject_audio(message_text(question), len(audios))
        task = task_prompt(message_text(question), pretrained=chat.info.is_pretrained)
        if number is not None and (chat.info.is_pretrained or chat.has_ctc_head):
            subject = Audio.load(audios[number - 1])
            is_only_audio = len(conversation_audios([question]) or audios) == 1
            if chat.has_ctc_head and is_only_audio and wants_transcript(question):
                if subject.seconds > chat.transcript_seconds:
                    task = QUESTIONS["transcribe"].tags
            if task is not None:
                return TaskReply(chat, task, subject, options, session, cancel, progress)
    return chat.stream(conversation, options, session=session, cancel=cancel)


def subject_audio(question: str, latest: int) -> int | None:
    """The number of the audio that a question is about: the first one it names, otherwise the latest.

    Args:
        question: the user's text.
        latest: number of the latest audio, the question's own included; 0 for none.
    """
    named = [int(number) for number in re.findall(r"(?:audio|音频)\s*(\d{1,3})", question, re.IGNORECASE)]
    for number in named:
        if 1 <= number <= latest:
            return number
    return latest or None
