"""What one visitor's conversation has already cost: clip embeddings by content, and the last key-value cache.

Nothing is shared between sessions. This module knows keys, embeddings and ids only.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

import numpy as np
import torch

from .cache import KeyValueCache

MAX_SESSION_EMBEDDING_BYTES = 256 * 2**20
MAX_EMBEDDING_BYTES = 2**30  # over all sessions; in the computer's memory, not the GPU's


@dataclass
class Session:
    """One visitor's reusable work, to be used through its `SessionStore`.

    Attributes:
        embeddings: of each encoded clip, by digest of its samples: (last use, [tokens, hidden_size] in CPU memory).
        cache: key-value cache of the last prompt and answer.
        signature: int64, one number for each position that the cache holds (see `chat.prompt_signature`).
        turn: how many answers have asked for the cache.
    """

    embeddings: dict[bytes, tuple[int, torch.Tensor]] = field(default_factory=dict)
    cache: KeyValueCache | None = None
    signature: np.ndarray | None = None
    turn: int = 0

    @property
    def embedding_bytes(self) -> int:
        """Bytes of the embeddings."""
        return sum(embedding.nbytes for _, embedding in self.embeddings.values())


class SessionStore:
    """The open sessions, and the bounds on what they keep. Least recently used work is dropped first.

    Args:
        max_cache_bytes: of the key-value caches of all sessions together.

    The lock may be taken again by the thread that holds it: an abandoned answer returns its cache when the garbage
    collector finds it, in whatever thread that happens.
    """

    def __init__(self, max_cache_bytes: int):
        self.max_cache_bytes = max_cache_bytes
        self._sessions: dict[int, Session] = {}  # ordered by the last cache they were given
        self._clock = count()
        self._lock = threading.RLock()

    def open(self) -> Session:
        """A new session, counted until it is closed. One that was never opened keeps nothing between answers."""
        session = Session()
        with self._lock:
            self._sessions[id(session)] = session
        return session

    def close(self, session: Session) -> None:
        """Forget a session and free its cache and embeddings."""
        with self._lock:
            self._sessions.pop(id(session), None)
            session.cache = session.signature = None
            session.embeddings.clear()

    def embedding(self, session: Session, key: bytes, encode: Callable[[], torch.Tensor | None]) -> torch.Tensor | None:
        """The embeddings [tokens, hidden_size] of the clip with this key, encoded when they are first needed.

        None where `encode` returns None, because it was cancelled.
        """
        with self._lock:
            known = session.embeddings.get(key)
        embedding = encode() if known is None else known[1]
        if embedding is None:
            return None
        embedding = embedding.cpu()
        with self._lock:
            session.embeddings[key] = next(self._clock), embedding
        return embedding

    def take_cache(self, session: Session) -> tuple[KeyValueCache | None, np.ndarray | None, int]:
        """The cache and its signature, for one answer alone, and the number of the turn, for `keep_cache`.

        A second answer at the same time finds no cache and computes its own.
        """
        with self._lock:
            taken = session.cache, session.signature
            session.cache = session.signature = None
            session.turn += 1
            return *taken, session.turn

    def keep_cache(self, session: Session, cache: KeyValueCache, signature: np.ndarray, turn: int) -> None:
        """Return a cache to its session, unless that was closed, or a later answer has begun, in the meantime."""
        with self._lock:
            if id(session) not in self._sessions or turn != session.turn or cache.nbytes > self.max_cache_bytes:
                return
            session.cache, session.signature = cache, signature
            self._sessions[id(session)] = self._sessions.pop(id(session))
            used = sum(other.cache.nbytes for other in list(self._sessions.values()) if other.cache is not None)
            for other in list(self._sessions.values()):
                if used <= self.max_cache_bytes:
                    break
                if other.cache is not None:
                    used -= other.cache.nbytes
                    other.cache = other.signature = None

    def trim(self, session: Session) -> None:
        """Drop the least recently used embeddings beyond the bounds; they can be computed again."""
        with self._lock:
            _drop_oldest([session], MAX_SESSION_EMBEDDING_BYTES)
            _drop_oldest(list(self._sessions.values()), MAX_EMBEDDING_BYTES)


def _drop_oldest(sessions: list[Session], max_bytes: int) -> None:
    surplus = sum(session.embedding_bytes for session in sessions) - max_bytes
    if surplus <= 0:
        return
    entries = [(used, key, session) for session in sessions for key, (used, _) in session.embeddings.items()]
    for _, key, session in sorted(entries, key=lambda entry: entry[0]):
        surplus -= session.embeddings.pop(key)[1].nbytes
        if surplus <= 0:
            return
