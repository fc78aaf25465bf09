"""Hugging Face ZeroGPU: each answer is made in a process that holds a GPU for it alone.

Such a process gets pickled arguments, gives back pickled results, and forgets the rest: there is no key-value cache to
reuse in the next turn.
"""

from collections.abc import Iterator, Sequence

from ..audio.decoding import SAMPLE_RATE
from ..chat import AudioChat
from ..engine.sampling import GenerationOptions
from ..prompts.messages import content_parts
from ..reply import Reply

# Seconds of GPU asked for: set up, and then so many tokens and seconds of audio a second. Guesses, on the safe side.
SET_UP_SECONDS = 15
TOKENS_A_SECOND = 15
AUDIO_SECONDS_A_SECOND = 30
LONGEST_SECONDS = 120


class ZeroGPUChat:
    """An `AudioChat` whose answers borrow a GPU; all else is that of the chat itself."""

    def __init__(self, chat: AudioChat):
        import spaces  # stands ready on ZeroGPU, and nowhere else

        def generate(messages: list[dict], options: GenerationOptions) -> Iterator[tuple[str, dict]]:
            reply = chat.stream(messages, options)
            for piece in reply:
                yield piece, _known(reply)
            yield "", _known(reply)

        self._chat = chat
        self._generate = spaces.GPU(generate, duration=gpu_seconds)

    def __getattr__(self, name: str):
        return getattr(self._chat, name)

    def stream(self, conversation, options=GenerationOptions(), *, session=None, cancel=None) -> Reply:  # noqa: B008
        """As `AudioChat.stream`, but `session` is of no use."""
        reply = Reply(self._chat.info.context_limit)
        reply._pieces = self._pieces(reply, self._generate(list(conversation), options), cancel)
        return reply

    @staticmethod
    def _pieces(reply: Reply, states: Iterator[tuple[str, dict]], cancel) -> Iterator[str]:
        for piece, known in states:
            vars(reply).update(known)
            if piece:
                yield piece
            if reply.finish_reason is None and cancel is not None and cancel.is_set():
                reply.finish_reason = "cancelled"
                states.close()  # which tells the other process to stop, and frees the GPU
                return

    def warm_up(self) -> None:
        """Nothing: without a visitor there is no GPU."""


def _known(reply: Reply) -> dict:
    """What is known of a reply, to be sent to another process."""
    return {name: value for name, value in vars(reply).items() if not name.startswith("_")}


def gpu_seconds(messages: Sequence[dict], options: GenerationOptions) -> int:
    """Seconds of GPU to ask for. ZeroGPU counts them against the visitor's quota, and kills what lasts longer."""
    heard = 0.0
    for message in messages:
        for part in content_parts(message):
            if part["type"] == "audio":
                heard += part["clip"].seconds if "clip" in part else len(part["audio"]) / SAMPLE_RATE
    seconds = SET_UP_SECONDS + options.max_new_tokens / TOKENS_A_SECOND + heard / AUDIO_SECONDS_A_SECOND
    return round(min(seconds, LONGEST_SECONDS))
