"""What one visitor's conversation has already cost: clip embeddings by content, and the last key-value cache.

Nothing is shared between sessions. This module knows keys, embeddings and ids only.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from .cache import KeyValueCache

SESSION_AUDIO_BYTES = 256 * 2**20  # of the clip embeddings that one session may keep


@dataclass
class Session:
    """One visitor's reusable work. Embeddings are ordered by use, the least recently used first.

    Attributes:
        embeddings: [tokens, hidden_size] of each encoded clip, by the digest of its samples.
        cache: key-value cache of the last prompt and answer.
        signature: int64, one number for each position that the cache holds (see `chat.prompt_signature`).
    """

    embeddings: OrderedDict[bytes, torch.Tensor] = field(default_factory=OrderedDict)
    cache: KeyValueCache | None = None
    signature: np.ndarray | None = None

    def embedding(self, key: bytes, encode: Callable[[], torch.Tensor]) -> torch.Tensor:
        """The embeddings [tokens, hidden_size] of the clip with this key, encoded when they are first needed."""
        found = self.embeddings.get(key)
        if found is None:
            found = self.embeddings[key] = encode()
        self.embeddings.move_to_end(key)
        return found

    def take_cache(self) -> tuple[KeyValueCache | None, np.ndarray | None]:
        """Hand the cache over to one answer; a second answer at the same time finds none and computes its own."""
        taken = self.cache, self.signature
        self.cache = self.signature = None
        return taken

    def trim(self) -> None:
        """Drop the least recently used embeddings beyond `SESSION_AUDIO_BYTES`; they can be computed again."""
        total = sum(embedding.nbytes for embedding in self.embeddings.values())
        while total > SESSION_AUDIO_BYTES:
            _, oldest = self.embeddings.popitem(last=False)
            total -= oldest.nbytes


class SessionStore:
    """The open sessions. Their key-value caches share one bound; the least recently used is freed first."""

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
        """Forget a session and free its cache and embeddings."""
        with self._lock:
            self._sessions.pop(id(session), None)
            session.take_cache()
        session.embeddings.clear()

    def keep_cache(self, session: Session, cache: KeyValueCache, signature: np.ndarray) -> None:
        """Return a cache to its session, unless that was closed in the meantime."""
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
