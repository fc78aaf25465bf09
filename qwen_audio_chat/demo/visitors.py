"""What the server holds for each visitor, and for how long: conversation, audio files, model session, one job at most.

A visitor's job is either to read the audios of a message or of an import, or to answer:

    no job ──begin_reading──► reading ──queue_answer──► waiting ──begin_answer──► answering
       ▲                         │      (a message)        │                          │
       └───────end_job───────────┴─────────────────────────┴──────────────────────────┘

`queue_answer` also starts from any other state, and replaces the job there is: a retry while an answer is under way.
`drop_job` and `drop_waiting_answer` lead back to "no job" at once. The work itself may end later: whoever does it asks,
under the visitor's lock and before keeping anything, whether `visitor.job is job`, and otherwise drops the result.
Setting `job.cancel` makes an answer end early with the text that it has.
"""

import secrets
import shutil
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ..audio.audio import Audio
from ..chat import AudioChat
from ..engine.sessions import Session
from ..prompts.conversation import Conversation
from ..prompts.messages import AudioPart
from . import memory
from .gradio_internals import is_upload, upload_folder
from .page_audio import audio_parts
from .spectrogram import save_picture

GRACE_SECONDS = 30 * 60  # a sleeping phone looks like a closed page, so a conversation outlives its page for this long
MAX_VISITORS = 500
MIN_KEY_LENGTH = 32  # characters of a tab's key; a shorter one could be guessed
RELOAD_WAIT_SECONDS = 3  # a reloaded page waits this long for its predecessor to end


@dataclass(eq=False)
class Job:
    """Something under way for a visitor; see the diagram above.

    Attributes:
        cancel: set to end an answer early.
        has_begun: of an answer, whether the model works on it; until then it waits in the queue.
    """

    kind: Literal["reading", "answering"]
    cancel: threading.Event = field(default_factory=threading.Event)
    has_begun: bool = False


@dataclass
class Visitor:
    """One browser tab, recognised by its `key` when it is reloaded."""

    chat: AudioChat
    folder: Path
    key: str = ""
    conversation: Conversation = field(default_factory=Conversation)
    note: str = ""  # why the last message has no answer
    status: list[str] = field(default_factory=list)  # figures of the last answer
    uploads: set[Path] = field(default_factory=set)
    names: dict[Path, str] = field(default_factory=dict)  # the visitor's names for the audios in `folder`
    in_sync: bool = False  # the page shows what is known here; not so if it is older than the server process
    job: Job | None = None
    left_at: float | None = None
    lock: threading.RLock = field(default_factory=threading.RLock)
    _session: Session | None = None

    @property
    def session(self) -> Session:
        """The model's memory of this visitor, made when it is first needed."""
        with self.lock:
            if self._session is None:
                self._session = self.chat.new_session()
            return self._session

    def close_session(self) -> None:
        """Free the key-value cache and whatever was computed of the audios."""
        with self.lock:
            session, self._session = self._session, None
            for message in self.conversation:
                for part in audio_parts(message):
                    part["audio"].release()
        if session is not None:
            self.chat.close_session(session)

    @property
    def is_reading(self) -> bool:
        """Whether the audios of a message or of an import are being read."""
        job = self.job
        return job is not None and job.kind == "reading"

    @property
    def is_answering(self) -> bool:
        """Whether a message waits for its answer or is being answered."""
        job = self.job
        return job is not None and job.kind == "answering"

    def begin_reading(self) -> Job | None:
        """A new job to read audios; None if there is a job already."""
        with self.lock:
            if self.job is not None:
                return None
            self.job = Job("reading")
            return self.job

    def queue_answer(self) -> None:
        """Put an answer in the queue, in place of any other job."""
        with self.lock:
            self.drop_job()
            self.job, self.note = Job("answering"), ""

    def begin_answer(self) -> Job | None:
        """The answer that waits in the queue, from now on under way; None if none waits."""
        with self.lock:
            job = self.job
            if job is None or job.kind != "answering" or job.has_begun:
                return None
            job.has_begun = True
            return job

    def end_job(self, job: Job) -> None:
        """A job is done, unless it was dropped before."""
        with self.lock:
            if self.job is job:
                self.job = None

    def drop_job(self) -> None:
        """Give up the job under way, if there is one: its result won't be kept."""
        with self.lock:
            if self.job is not None:
                self.job.cancel.set()
                self.job = None

    def drop_waiting_answer(self, note: str) -> bool:
        """Give up an answer that hasn't begun, and show the note in its place. Returns whether there was one."""
        with self.lock:
            if self.job is None or self.job.kind != "answering" or self.job.has_begun:
                return False
            self.drop_job()
            self.note = note
            return True

    def add_audio(self, name: str, audio: Audio, job: Job | None = None) -> AudioPart | None:
        """Store an audio in the visitor's folder, for players and for the model.

        Args:
            name: what the visitor calls it.
            job: on whose behalf.

        Returns:
            The part for a message; None, with nothing stored, if the job was dropped.
        """
        with self.lock:
            if self.job is not job:
                return None
            self.folder.mkdir(parents=True, exist_ok=True)
            stem = secrets.token_hex(8)
            file, picture = self.folder / f"{stem}.wav", self.folder / f"{stem}.png"
            save_picture(audio, picture)
            audio.store(file)
            self.names[file] = name
            return {"type": "audio", "audio": audio, "name": name, "picture": picture}

    def remember_upload(self, path: Path) -> None:
        """Note a file as uploaded by the visitor, to delete it with everything else."""
        if is_upload(path):
            self.uploads.add(path)

    def forget(self) -> None:
        """Delete all that is known of the visitor; the page stays usable."""
        with self.lock:
            self.drop_job()
            self.conversation, self.note, self.status = Conversation(), "", []
            self.close_session()
            shutil.rmtree(self.folder, ignore_errors=True)
            for upload in self.uploads:
                upload.unlink(missing_ok=True)
            self.uploads.clear()
            self.names.clear()


class Visitors:
    """The visitors of one server, by Gradio's session hash."""

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
                # Gradio serves its files to anyone with the address, so the folder's name is as long as a password.
                folder = upload_folder() / f"visitor-{secrets.token_urlsafe(24)}"
                visitor = self._visitors[session_hash] = Visitor(self.chat, folder)
            visitor.left_at = None
            self._visitors.move_to_end(session_hash)
            return visitor

    def rejoin(self, session_hash: str, key: str) -> Visitor:
        """The visitor of a page that was just loaded: the one who left the same tab, or a new one.

        The key of a page that is still open (a duplicated tab) gives access to nothing.
        """
        visitor = self.get(session_hash)
        visitor.in_sync = True
        if len(key) < MIN_KEY_LENGTH:
            return visitor
        deadline = time.monotonic() + RELOAD_WAIT_SECONDS
        while (found := self._find(key)) and (found[1].left_at is None or found[1].is_answering):
            if time.monotonic() > deadline:
                return visitor
            time.sleep(0.05)
        with self._lock:
            if found and self._visitors.pop(found[0], None) is found[1]:
                self._visitors[session_hash] = found[1]
        visitor = self.get(session_hash)
        visitor.key, visitor.in_sync = key, True
        return visitor

    def _find(self, key: str) -> tuple[str, Visitor] | None:
        """(session hash, visitor) of a tab."""
        with self._lock:
            return next((item for item in self._visitors.items() if item[1].key == key), None)

    def leave(self, session_hash: str, note: str = "") -> None:
        """The page was closed, or its connection broke: end the job, free the model's memory, keep the conversation.

        Args:
            note: shown in place of an answer that hadn't begun; Gradio takes a closed page out of its queue.
        """
        with self._lock:
            visitor = self._visitors.get(session_hash)
            if visitor is not None and not visitor.conversation:
                del self._visitors[session_hash]
        if visitor is None:
            return
        if not visitor.conversation:
            visitor.forget()
            return
        with visitor.lock:
            if visitor.is_reading:
                visitor.drop_job()
            elif not visitor.drop_waiting_answer(note) and visitor.job is not None:
                visitor.job.cancel.set()  # the text so far is kept
        visitor.close_session()
        visitor.left_at = time.monotonic()
        memory.return_freed_memory()
        self._sweep_later()

    def _sweep_later(self) -> None:
        """Sweep when the grace of the first visitor to leave is over; one timer serves all."""
        with self._lock:
            left = [visitor.left_at for visitor in self._visitors.values() if visitor.left_at is not None]
            if self._timer is not None or not left:
                return
            wait = max(0.0, min(left) + self.grace_seconds - time.monotonic()) + 1
            self._timer = threading.Timer(wait, self._sweep_by_timer)
            self._timer.daemon = True
            self._timer.start()

    def _sweep_by_timer(self) -> None:
        self._timer = None
        self.sweep()
        self._sweep_later()

    def num_answering(self) -> int:
        """How many visitors get or wait for an answer."""
        with self._lock:
            return sum(visitor.is_answering for visitor in self._visitors.values())

    def sweep(self) -> None:
        """Forget visitors whose grace is over, and the least recently seen beyond `MAX_VISITORS`."""
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
