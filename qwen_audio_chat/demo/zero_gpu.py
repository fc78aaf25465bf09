"""Hugging Face ZeroGPU: each answer is made in a process that holds a GPU for this answer alone.

Such a process takes pickled arguments, yields pickled results, and keeps nothing: no key-value cache is reused in the
next turn.
"""

import threading
from collections.abc import Generator, Iterator, Sequence
from typing import Any

from ..audio.audio import Audio
from ..chat import AudioChat
from ..engine.sampling import GenerationOptions
from ..engine.sessions import Session
from ..prompts.messages import Message, conversation_audios
from ..reply import Reply

# How the seconds of GPU to ask for are estimated; cautious guesses.
SETUP_SECONDS = 15
TOKENS_PER_SECOND = 15
AUDIO_SECONDS_PER_SECOND = 30
MAX_SECONDS = 120


class ZeroGPUChat:
    """An `AudioChat` whose answers borrow a GPU; everything else is delegated to the chat itself."""

    def __init__(self, chat: AudioChat):
        import spaces  # pyright: ignore[reportMissingImports]  exists only on ZeroGPU

        def generate(
            messages: list[Message], options: GenerationOptions
        ) -> Generator[tuple[str, dict[str, Any]], None, None]:
            reply = chat.stream(messages, options)
            for piece in reply:
                yield piece, reply.snapshot()
            yield "", reply.snapshot()

        self._chat = chat
        self._generate = spaces.GPU(generate, duration=gpu_seconds)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._chat, name)

    def stream(
        self,
        conversation: Sequence[Message],
        options: GenerationOptions = GenerationOptions(),  # noqa: B008 - frozen
        *,
        session: Session | None = None,
        cancel: threading.Event | None = None,
    ) -> Reply:
        """As `AudioChat.stream`, but `session` isn't used."""

        def produce(reply: Reply) -> Iterator[str]:
            states = self._generate(list(conversation), options)
            for piece, snapshot in states:
                reply.restore(snapshot)
                if piece:
                    yield piece
                if reply.finish_reason is None and cancel is not None and cancel.is_set():
                    reply.finish_reason = "cancelled"
                    states.close()  # stops the other process, which frees the GPU
                    return

        return Reply(self._chat.info.context_limit, produce)

    def warm_up(self) -> None:
        """Nothing to do: without a question there is no GPU."""


def gpu_seconds(messages: Sequence[Message], options: GenerationOptions) -> int:
    """Seconds of GPU to ask for. ZeroGPU deducts them from the visitor's quota, and ends whatever takes longer."""
    audio_seconds = sum(Audio.load(source).seconds for source in conversation_audios(messages))
    seconds = SETUP_SECONDS + options.max_new_tokens / TOKENS_PER_SECOND + audio_seconds / AUDIO_SECONDS_PER_SECOND
    return round(min(seconds, MAX_SECONDS))
