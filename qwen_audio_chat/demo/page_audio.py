"""The audios of a conversation as the page sees them: numbered, named, with a player's file and picture."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..answering import subject_audio
from ..audio.audio import Audio
from ..audio.decoding import AudioSource
from ..audio.features import TOKENS_PER_SECOND, num_audio_tokens
from ..errors import UserError
from ..prompts.messages import AudioPart, Message, content_parts, message_text
from .texts import duration


@dataclass(frozen=True)
class PageAudio:
    """A view of one audio part of a message.

    Attributes:
        number: counted from 1 through the whole conversation.
        name: what the visitor calls it.
        picture: its spectrogram.
    """

    number: int
    name: str
    audio: Audio
    picture: Path

    @property
    def seconds(self) -> float:
        """The length."""
        return self.audio.seconds

    @property
    def file(self) -> Path:
        """The 16 kHz WAV file in the visitor's folder."""
        assert self.audio.file is not None, "the page stores every audio that it keeps"
        return self.audio.file

    @property
    def piece_starts(self) -> tuple[float, ...]:
        """Seconds at which the pieces of at most 30 s begin."""
        return tuple(piece.start for piece in self.audio.pieces())


def audio_parts(message: Message) -> list[AudioPart]:
    """The audio parts of a message."""
    return [part for part in content_parts(message) if part["type"] == "audio"]


def page_audios(message: Message, first_number: int = 1) -> list[PageAudio]:
    """The audios of a message, numbered from `first_number`."""
    return [
        PageAudio(number, part.get("name", ""), part["audio"], part.get("picture", Path()))
        for number, part in enumerate(audio_parts(message), start=first_number)
    ]


def number_audios(conversation: Sequence[Message]) -> Iterator[tuple[Message, list[PageAudio], PageAudio | None]]:
    """Each message with its audios, and the audio that the message, or the answer to it, is about."""
    audios: list[PageAudio] = []
    subject = None
    for message in conversation:
        new = page_audios(message, first_number=len(audios) + 1)
        audios += new
        if message["role"] == "user":
            number = subject_audio(message_text(message), len(audios))
            subject = None if number is None else audios[number - 1]
        yield message, new, subject


def question_message(text: str, parts: Sequence[AudioPart]) -> Message:
    """A user's message of audio parts, as `Visitor.add_audio` makes them, and a text."""
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}]}


def load_fitting(sources: Iterable[AudioSource], context_limit: int) -> Iterator[Audio]:
    """Decode the audios of one message one by one, as long as they may fit into the model's context.

    Stopping at the first audio too many keeps memory bounded: a small file can hold hours of silence.

    Raises:
        AudioError: an audio can't be used.
        UserError: together the audios need more tokens than `context_limit`.
    """
    tokens, seconds = 0, 0.0
    for source in sources:
        audio = Audio.load(source)
        tokens += sum(num_audio_tokens(piece.num_samples) for piece in audio.pieces())
        seconds += audio.seconds
        if tokens > context_limit:
            raise UserError(
                "This is {seconds} of audio, but the model holds about {limit}: use a shorter part.",
                seconds=duration(seconds),
                limit=duration(context_limit / TOKENS_PER_SECOND),
            )
        yield audio
