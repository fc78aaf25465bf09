"""What a visitor's conversation has cost already, kept for the next turn: private to the visitor, bounded in bytes."""

import threading
from collections import OrderedDict
from dataclasses import dataclass, field

import numpy as np
import torch

from .generation import KeyValueCache

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
        return sum(x.nbytes for x in [*self.mels, *self.embeddings] if x is not None)


@dataclass
class Session:
    """One visitor's reusable work: audios by content (longest unused first) and the last key-value cache."""

    audios: OrderedDict[bytes, HeardAudio] = field(default_factory=OrderedDict)
    cache: KeyValueCache | None = None
    signature: np.ndarray | None = None  # int64, one number for each position that the cache holds

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
        session = Session()
        with self._lock:
            self._sessions[id(session)] = session
        return session

    def close(self, session: Session) -> None:
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
