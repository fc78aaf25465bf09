"""A visitor's audio embeddings and key-value cache, kept between turns so that only what is new is computed."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ..audio.cutting import split_audio
from ..audio.decoding import SAMPLE_RATE, load_audio, read_bytes
from ..audio.features import log_mel, num_mel_tokens
from ..prompts.chatml import EncodedChat
from .cache import KeyValueCache

SESSION_AUDIO_BYTES = 256 * 2**20  # what one session may keep of its audios


@dataclass
class HeardAudio:
    """An audio as the model takes it, in pieces of at most 30 s.

    A piece has its log-mel [mel bins, frames] until it is encoded, then its embeddings [tokens, hidden_size].
    """

    key: bytes  # digest of the content
    seconds: float
    mels: list[torch.Tensor]
    tokens: list[int]
    embeddings: list[torch.Tensor | None]

    @property
    def nbytes(self) -> int:
        """Bytes of the log-mels and embeddings that are held."""
        return sum(x.nbytes for x in [*self.mels, *self.embeddings] if x is not None)


@dataclass
class Session:
    """One visitor's reusable work: audios by content (longest unused first) and the last key-value cache."""

    audios: OrderedDict[bytes, HeardAudio] = field(default_factory=OrderedDict)
    cache: KeyValueCache | None = None
    signature: np.ndarray | None = None  # int64, one number for each position that the cache holds

    def hear(self, source: Any, num_mel_bins: int) -> HeardAudio:
        """Decode an audio, or find it by its content; it is encoded when first needed.

        Raises:
            audio.AudioError: it can't be used.
        """
        source, key = _content_key(source)
        heard = self.audios.get(key)
        if heard is None:
            waveform = load_audio(source)
            pieces = split_audio(waveform)
            mels = [log_mel(piece, num_mel_bins) for piece in pieces]
            tokens = [num_mel_tokens(mel) for mel in mels]
            seconds = len(waveform) / SAMPLE_RATE
            heard = HeardAudio(key, seconds, mels, tokens, [None] * len(mels))
            self.audios[key] = heard
        self.audios.move_to_end(key)
        return heard

    def take_cache(self) -> tuple[KeyValueCache | None, np.ndarray | None]:
        """Hand the cache over to one answer; a second answer at the same time finds none and computes its own."""
        taken = self.cache, self.signature
        self.cache = self.signature = None
        return taken

    def trim_audios(self) -> None:
        """Let the longest unused audios go beyond the bound; they would be decoded and encoded again."""
        total = sum(heard.nbytes for heard in self.audios.values())
        while total > SESSION_AUDIO_BYTES:
            _, oldest = self.audios.popitem(last=False)
            total -= oldest.nbytes


class SessionStore:
    """The open sessions. Their key-value caches together stay within `max_cache_bytes`, longest unused freed first."""

    def __init__(self, max_cache_bytes: int):
        self.max_cache_bytes = max_cache_bytes
        self._sessions: OrderedDict[int, Session] = OrderedDict()
        self._lock = threading.Lock()

    def open(self) -> Session:
        """A new session, counted until it is closed."""
        session = Session()
        with self._lock:
            self._sessions[id(session)] = session
        return session

    def close(self, session: Session) -> None:
        """Forget a session and free its cache."""
        with self._lock:
            self._sessions.pop(id(session), None)
            session.take_cache()
        session.audios.clear()

    def keep_cache(self, session: Session, cache: KeyValueCache, signature: np.ndarray) -> None:
        """Give a cache back to its session, unless that was closed meanwhile."""
        with self._lock:
            if id(session) not in self._sessions:
                return
            session.cache, session.signature = cache, signature
            self._sessions.move_to_end(id(session))
            used = sum(s.cache.nbytes for s in self._sessions.values() if s.cache is not None)
            for other in self._sessions.values():
                if used <= self.max_cache_bytes:
                    break
                if other.cache is not None:
                    used -= other.cache.nbytes
                    other.take_cache()


def _content_key(source: Any) -> tuple[Any, bytes]:
    """The source in a form that can be read again, and a digest of its content."""
    array, rate = source if isinstance(source, tuple) else (source, None)
    if hasattr(array, "__array__"):
        array = np.ascontiguousarray(array)
        kind = f"{rate} {array.dtype} {array.shape} ".encode()
        return source, hashlib.sha256(kind + array.tobytes()).digest()
    data = read_bytes(source)
    return data, hashlib.sha256(data).digest()


def signature_of(chat: EncodedChat, audios: Sequence[HeardAudio]) -> np.ndarray:
    """A prompt as int64: ids, and in place of a clip's placeholders a negative number that stands for its content."""
    signature = np.array(chat.input_ids, dtype=np.int64)
    for slot in chat.slots:
        digest = hashlib.sha256(audios[slot.audio].key + slot.piece.to_bytes(4, "little")).digest()
        signature[slot.start : slot.end] = -1 - int.from_bytes(digest[:7], "little")
    return signature
