"""`Conversation`: a list of messages with shorthands to add turns."""

from collections.abc import Sequence

from ..audio.audio import Audio
from ..audio.decoding import AudioSource
from .messages import assistant_message, user_message


class Conversation(list):
    """A list of messages (see `messages`). Audios are numbered from 1 through the whole conversation."""

    def ask(self, text: str = "", audios: "Sequence[Audio | AudioSource]" = ()) -> "Conversation":
        """Append a user's turn: `audios`, decoded here and now, then `text`. Returns itself.

        Raises:
            AudioError: an audio can't be used.
        """
        self.append(user_message(text, [Audio.load(source) for source in audios]))
        return self

    def answer(self, text: str, token_ids: Sequence[int] | None = None) -> "Conversation":
        """Append an assistant's turn, with the ids as generated where they are known. Returns itself."""
        self.append(assistant_message(text, token_ids))
        return self
