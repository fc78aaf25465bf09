"""What the server holds for each visitor: a conversation, audio files nobody else can guess, a session of the model."""

import secrets
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from gradio.utils import get_upload_folder

from ..audio.cutting import pieces
from ..audio.decoding import SAMPLE_RATE, to_wav_bytes
from ..chat import AudioChat
from ..engine.sessions import Session
from ..prompts.conversation import Conversation
from . import memory
from .spectrogram import save_picture

GRACE_SECONDS = 30 * 60  # a phone that sleeps looks like a closed page: its conversation waits so long for it
MAX_VISITORS = 500
MIN_KEY = 32  # characters of a tab's key; a shorter one could be guessed
RELOAD_SECONDS = 3  # so long a page that is loaded again waits for the end of the page before


def is_upload(path: Path) -> bool:
    """Whether it is `<upload folder>/<digest>/<name>`; other paths within the folder may belong to somebody else."""
    return path.parent.parent == Path(get_upload_folder()) and len(path.parent.name) == 64


@dataclass(frozen=True)
class Clip:
    """An audio of a conversation: a 16 kHz WAV and its picture in the visitor's folder."""

    name: str
    seconds: float
    wav: Path
    picture: Path
    starts: tuple[float, ...] = (0.0,)  # seconds at which its pieces of at most 30 s begin


class Forgotten(Exception):
    """The visitor left, or had everything deleted, while something was still being read."""


@dataclass
class Visitor:
    """One browser tab, known by its `key` when it is loaded again.

    `cancel` belongs to the answer under way; whoever replaces it makes that answer end unheard.
    """

    chat: AudioChat
    folder: Path
    key: str = ""
    conversation: Conversation = field(default_factory=Conversation)
    note: str = ""  # why the last message has no answer
    status: list[str] = field(default_factory=list)  # figures of the last answer
    uploads: set[Path] = field(default_factory=set)
    names: dict[Path, str] = field(default_factory=dict)  # what the visitor calls an audio that lies under another name
    cancel: threading.Event = field(default_factory=threading.Event)
    is_open: bool = False  # the page was loaded from this server, and shows what is known here
    reading: bool = False  # the audios of a message are being read
    answering: bool = False  # a message waits for its answer or is being answered
    started: bool = False  # and the model is at it
    left_at: float | None = None
    dropped: int = 0  # how often what was being read was given up: the visitor left, or had everything deleted
    lock: threading.RLock = field(default_factory=threading.RLock)
    _session: Session | None = None

    @property
    def session(self) -> Session:
        """The model's memory of this visitor, made when first needed."""
        with self.lock:
            if self._session is None:
                self._session = self.chat.new_session()
            return self._session

    def close_session(self) -> None:
        """Free the key-value cache and the encoded audios."""
        with self.lock:
            session, self._session = self._session, None
        if session is not None:
            self.chat.close_session(session)

    def begin_reading(self) -> int | None:
        """`dropped` if the audios of a new message may be read, else None: one at a time, once the last is answered."""
        with self.lock:
            if self.reading or self.answering:
                return None
            self.reading = True
            return self.dropped

    @contextmanager
    def keeping(self, dropped: int) -> Iterator[None]:
        """Hold the lock, to keep what began to be read when `dropped` was this.

        Raises:
            Forgotten: it was given up since.
        """
        with self.lock:
            if self.dropped != dropped:
                raise Forgotten
            yield

    def drop_reading(self) -> None:
        """Give up what is being read."""
        with self.lock:
            self.dropped += 1
            self.reading = False

    def add_clip(self, name: str, waveform: np.ndarray) -> Clip:
        """Keep a 16 kHz waveform, float32 [samples], for players and for the model."""
        self.folder.mkdir(parents=True, exist_ok=True)
        stem = secrets.token_hex(8)
        wav, picture = self.folder / f"{stem}.wav", self.folder / f"{stem}.png"
        wav.write_bytes(to_wav_bytes(waveform))
        save_picture(waveform, picture)
        starts = tuple(start for start, _ in pieces(waveform))
        self.names[wav] = name
        return Clip(name, len(waveform) / SAMPLE_RATE, wav, picture, starts)

    def remember_upload(self, path: Path) -> None:
        """Note a file as uploaded by the visitor, to delete it with the rest."""
        if is_upload(path):
            self.uploads.add(path)

    def interrupt(self) -> threading.Event:
        """End the answer under way, which then keeps nothing, and return the event of the next one."""
        with self.lock:
            self.cancel.set()
            self.cancel = threading.Event()
            self.answering = self.started = False
            return self.cancel

    def forget(self) -> None:
        """Delete all that is known of the visitor; the page can be used on."""
        with self.lock:
            self.interrupt()
            self.drop_reading()
            self.conversation, self.note, self.status = Conversation(), "", []
            self.close_session()
            shutil.rmtree(self.folder, ignore_errors=True)
            for upload in self.uploads:
                upload.unlink(missing_ok=True)
            self.uploads.clear()
            self.names.clear()


class Visitors:
    """The visitors of one server, by Gradio's session."""

    def __init__(self, chat: AudioChat, grace_seconds: float = GRACE_SECONDS):
        self.chat = chat
        self.grace_seconds = grace_seconds
        self._visitors: OrderedDict[str, Visitor] = OrderedDict()
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def __len__(self) -> int:
        return len(self._visitors)

    def get(self, session_hash: str) -> Visitor:
        """The visitor of a page, known or new."""
        self.sweep()
        with self._lock:
            visitor = self._visitors.get(session_hash)
            if visitor is None:
                # Within Gradio's upload folder it is served to who knows the address, which is as long as a password.
                folder = Path(get_upload_folder()) / f"visitor-{secrets.token_urlsafe(24)}"
                visitor = self._visitors[session_hash] = Visitor(self.chat, folder)
            visitor.left_at = None
            self._visitors.move_to_end(session_hash)
            return visitor

    def rejoin(self, session_hash: str, key: str) -> Visitor:
        """The visitor of a page that was just loaded: the one who left the same tab, or a new one.

        A key of a page that is still open (a duplicated tab) opens nothing.
        """
        visitor = self.get(session_hash)
        visitor.is_open = True
        if len(key) < MIN_KEY:
            return visitor
        end = time.monotonic() + RELOAD_SECONDS
        while (before := self._by_key(key)) and (before[1].left_at is None or before[1].answering):
            if time.monotonic() > end:
                return visitor
            time.sleep(0.05)
        with self._lock:
            if before and self._visitors.pop(before[0], None) is before[1]:
                self._visitors[session_hash] = before[1]
        visitor = self.get(session_hash)
        visitor.key, visitor.is_open = key, True
        return visitor

    def _by_key(self, key: str) -> tuple[str, Visitor] | None:
        with self._lock:
            return next((item for item in self._visitors.items() if item[1].key == key), None)

    def leave(self, session_hash: str, note: str = "") -> None:
        """The page was closed, or its line broke: stop answering, free the model's memory, keep what was said.

        Args:
            note: what stands in the place of an answer that hadn't begun; Gradio forgets who waited with the page.
        """
        with self._lock:
            visitor = self._visitors.get(session_hash)
            if visitor is not None and not visitor.conversation:
                del self._visitors[session_hash]  # nothing was said
        if visitor is None:
            return
        if not visitor.conversation:
            visitor.forget()
            return
        with visitor.lock:
            visitor.cancel.set()
            visitor.drop_reading()
            if visitor.answering and not visitor.started:
                visitor.interrupt()
                visitor.note = note
        visitor.close_session()
        visitor.left_at = time.monotonic()
        memory.give_back()
        self._sweep_later()

    def _sweep_later(self) -> None:
        """Sweep when the grace of whoever left first is over; one timer is enough for all."""
        with self._lock:
            left = [visitor.left_at for visitor in self._visitors.values() if visitor.left_at is not None]
            if self._timer is not None or not left:
                return
            wait = max(0.0, min(left) + self.grace_seconds - time.monotonic()) + 1
            self._timer = threading.Timer(wait, self._sweep_in_time)
            self._timer.daemon = True
            self._timer.start()

    def _sweep_in_time(self) -> None:
        self._timer = None
        self.sweep()
        self._sweep_later()

    def answering(self) -> int:
        """How many visitors get or wait for an answer."""
        with self._lock:
            return sum(visitor.answering for visitor in self._visitors.values())

    def sweep(self) -> None:
        """Forget who has left for good, and the longest unseen beyond `MAX_VISITORS`."""
        now = time.monotonic()
        with self._lock:
            gone = [
                key
                for key, visitor in self._visitors.items()
                if visitor.left_at is not None and now - visitor.left_at > self.grace_seconds
            ]
            gone += [key for key in self._visitors if key not in gone][: max(0, len(self) - len(gone) - MAX_VISITORS)]
            visitors = [self._visitors.pop(key) for key in gone]
        for visitor in visitors:
            visitor.forget()

    def forget_all(self) -> None:
        """Delete everything; for the end of the server."""
        with self._lock:
            visitors = list(self._visitors.values())
            self._visitors.clear()
        for visitor in visitors:
            visitor.forget()
