"""`AudioChat`: a loaded model that answers conversations as a stream, and computes only what is new.

What a visitor's conversation has cost already is kept in a `Session`: the audio embeddings, by content, and the
key-value cache of the last prompt and answer. Nothing is shared between two sessions.
"""

import hashlib
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from . import audio as audio_lib
from .chatml import EncodedChat, conversation_audios, encode_conversation
from .generation import GenerationOptions, KeyValueCache, RepetitionGuard, Sampler, TextStream, decode, prefill
from .model import QwenAudioForConditionalGeneration, QwenAudioProcessor
from .model.decoder import ntk_alpha
from .model.tokenization import AUDIO_END, AUDIO_PLACEHOLDER, AUDIO_START
from .sessions import HeardAudio, Session, SessionStore

POCKET = Path(__file__).resolve().parent.parent / "assets" / "pocket"
OFFICIAL = "Qwen/Qwen-Audio-Chat"
RESERVED_FOR_ANSWER = 256  # tokens of the context that a prompt leaves free, if so many are asked for


class ChatError(ValueError):
    """A conversation that can't be answered, told in one sentence for the user."""


@dataclass(frozen=True)
class ModelInfo:
    """What is loaded, for display."""

    name: str
    device: str
    precision: str
    is_pocket: bool
    context_limit: int


@dataclass
class ReplyStats:
    """Figures of one answer; times in seconds."""

    prompt_tokens: int = 0
    reused_tokens: int = 0
    context_limit: int = 0
    ttft_s: float | None = None
    tokens_per_s: float | None = None


class Reply:
    """An answer on its way: iterate for pieces of text. What is known of it grows while it is read."""

    def __init__(self, context_limit: int):
        self.text = ""
        self.token_ids: list[int] = []
        self.finish_reason: str | None = None  # "stop", "length", "cancelled" or "repetition"
        self.stats = ReplyStats(context_limit=context_limit)
        self.dropped_turns = 0
        self.notices: list[str] = []
        self._pieces: Iterator[str] = iter(())

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        return next(self._pieces)

    def finish(self) -> "Reply":
        """Read to the end; returns itself."""
        for _ in self:
            pass
        return self


class AudioChat:
    """A model and its processor, ready to talk. Answers of several visitors may be read at the same time.

    Args:
        model, processor: as loaded by `model.checkpoint.load_model`.
        name: shown to users.
        precision: shown to users, such as "bf16" or "int4".
        max_cache_bytes: bound on the key-value caches kept between turns, over all sessions.
    """

    def __init__(
        self,
        model: QwenAudioForConditionalGeneration,
        processor: QwenAudioProcessor,
        *,
        name: str,
        precision: str,
        is_pocket: bool = False,
        max_cache_bytes: int = 2 * 2**30,
    ):
        self.model = model.eval()
        self.processor = processor
        self.tokenizer = processor.tokenizer
        text_config = model.config.text_config
        # Qwen-7B was trained at 2,048 positions and reaches 8,192 by log-n scaling and dynamic NTK.
        self.uses_ntk = getattr(text_config, "use_dynamic_ntk", False)
        limit = text_config.max_position_embeddings * (4 if self.uses_ntk else 1)
        self.info = ModelInfo(name, str(model.device), precision, is_pocket, limit)
        self.sessions = SessionStore(max_cache_bytes)
        eos = model.generation_config.eos_token_id
        self.stop_ids = set(eos if isinstance(eos, list) else [eos])
        self.forbidden_ids = self._unsayable_ids()
        self._forward_lock = threading.Lock()

    def _unsayable_ids(self) -> list[int]:
        """Ids an answer can't hold: rows without a token, and the frame of an audio."""
        frame = self.tokenizer.convert_tokens_to_ids([AUDIO_START, AUDIO_END, AUDIO_PLACEHOLDER])
        return [*frame, *range(len(self.tokenizer), self.model.config.text_config.vocab_size)]

    def new_session(self) -> Session:
        """A visitor's own memory of work done. Close it when the visitor leaves."""
        return self.sessions.open()

    def close_session(self, session: Session) -> None:
        """Free a session's audio embeddings and key-value cache; an answer under way goes on without keeping any."""
        self.sessions.close(session)

    def stream(
        self,
        conversation: Sequence[dict],
        options: GenerationOptions = GenerationOptions(),  # noqa: B008 - frozen
        *,
        session: Session | None = None,
        cancel: threading.Event | None = None,
    ) -> Reply:
        """Answer the last message of a conversation (or go on with it, if it is the assistant's).

        The returned reply does its work while it is read. Setting `cancel` ends it within one token or one prefill
        chunk. The conversation itself is never changed: append `reply.text` and `reply.token_ids` to keep an answer.

        Raises:
            ChatError: while reading, the conversation is empty or too long for the model.
            audio.AudioError: while reading, an audio can't be used.
        """
        reply = Reply(self.info.context_limit)
        reply._pieces = self._answer(reply, list(conversation), options, session or Session(), cancel)
        return reply

    def _answer(self, reply, messages, options, session, cancel) -> Iterator[str]:
        started = time.perf_counter()
        is_cancelled = cancel.is_set if cancel is not None else lambda: False
        if not messages or messages[-1]["role"] == "system":
            raise ChatError("Ask a question or add an audio first.")
        audios = [self.hear(source, session) for source in conversation_audios(messages)]
        reply.notices += _split_notices(audios)
        chat = self._fit(reply, messages, audios, options)
        signature = _signature(chat, audios)
        cache, reused = self._reusable(session, signature)
        reply.stats.prompt_tokens, reply.stats.reused_tokens = len(chat.input_ids), reused

        logits = None
        embeddings = self._embed(chat, audios, reused, is_cancelled)
        if embeddings is not None:
            logits = prefill(self._forward, embeddings, cache, is_cancelled)
        if logits is None:
            reply.finish_reason = "cancelled"
            return
        try:
            yield from self._decode(reply, chat, logits, cache, options, is_cancelled, started)
        finally:
            held = np.concatenate([signature, np.array(reply.token_ids, dtype=np.int64)])[: cache.get_seq_length()]
            self.sessions.keep_cache(session, cache, held)
            session.trim_audios()

    def _decode(self, reply, chat, logits, cache, options, is_cancelled, started) -> Iterator[str]:
        sampler = Sampler(options, chat.input_ids, self.forbidden_ids, logits.device)
        room = self.info.context_limit - len(chat.input_ids)
        guard, text = RepetitionGuard(), TextStream(self.tokenizer)
        for token in decode(self._forward, logits, cache, sampler):
            now = time.perf_counter()
            if reply.stats.ttft_s is None:
                reply.stats.ttft_s, first = now - started, now
            if token in self.stop_ids:
                reply.finish_reason = "stop"
                break
            reply.token_ids.append(token)
            if len(reply.token_ids) > 1:
                reply.stats.tokens_per_s = (len(reply.token_ids) - 1) / (now - first)
            if piece := text.push(token):
                reply.text += piece
                yield piece
            if guard.is_looping(token):
                reply.finish_reason = "repetition"
                break
            if len(reply.token_ids) >= min(options.max_new_tokens, room):
                reply.finish_reason = "length"
                break
            if is_cancelled():
                reply.finish_reason = "cancelled"
                break
        if piece := text.flush():
            reply.text += piece
            yield piece

    def _forward(self, **inputs):
        """One pass, alone on the device. Locked per pass, not per answer: a reader who pauses blocks nobody."""
        with self._forward_lock:
            return self.model(**inputs)

    def warm_up(self) -> None:
        """Run one short answer, so that the first visitor doesn't pay for lazy initialisation."""
        message = {"role": "user", "content": [{"type": "audio", "audio": np.zeros(16000, np.float32)}]}
        self.stream([message], GenerationOptions(max_new_tokens=2)).finish()

    def hear(self, source: Any, session: Session) -> HeardAudio:
        """Decode an audio, or find it in the session by its content; it is encoded when first needed."""
        source, key = _content_key(source)
        heard = session.audios.get(key)
        if heard is None:
            waveform = audio_lib.load_audio(source)
            pieces = audio_lib.split_audio(waveform)
            mels = [audio_lib.log_mel(piece, self.processor.num_mel_bins) for piece in pieces]
            tokens = [mel.shape[-1] // 4 for mel in mels]
            seconds = len(waveform) / audio_lib.SAMPLE_RATE
            heard = HeardAudio(key, seconds, mels, tokens, [None] * len(mels))
            session.audios[key] = heard
        session.audios.move_to_end(key)
        return heard

    @torch.inference_mode()
    def _encode(self, heard: HeardAudio, piece: int) -> torch.Tensor:
        """Embeddings [tokens, hidden_size] of one piece, computed once per session; the log-mel is then let go."""
        if heard.embeddings[piece] is None:
            mel = heard.mels[piece].to(self.model.device)[None]
            lengths = torch.tensor([mel.shape[-1]], device=mel.device)
            with self._forward_lock:
                heard.embeddings[piece] = self.model.get_audio_features(mel, lengths)[0]
            heard.mels[piece] = mel.new_empty(0)
        return heard.embeddings[piece]

    def _fit(self, reply, messages, audios, options) -> EncodedChat:
        """Encode the conversation, without its oldest turns if it would not fit; says what was left out."""
        tokens = [heard.tokens for heard in audios]
        turns = sum(message["role"] == "user" for message in messages)
        room = self.info.context_limit - min(options.max_new_tokens, RESERVED_FOR_ANSWER)
        continue_answer = messages[-1]["role"] == "assistant"
        for drop in range(max(turns, 1)):
            chat = encode_conversation(
                self.tokenizer, messages, tokens, drop_turns=drop, continue_answer=continue_answer
            )
            if len(chat.input_ids) <= room:
                if drop:
                    reply.dropped_turns = drop
                    s = "" if drop == 1 else "s"
                    reply.notices.append(f"The context is full: the oldest {drop} turn{s} left it.")
                return chat
        raise ChatError(
            f"This needs {len(chat.input_ids)} tokens but the model holds {room} (25 per second of audio): "
            "use shorter audio, fewer clips or a shorter text."
        )

    def _reusable(self, session: Session, signature: np.ndarray) -> tuple[KeyValueCache, int]:
        """The cache to go on with, cut to the longest common prefix, and that prefix's length.

        At least one token is left to compute, for its logits. A prefix rotated with another base is of no use.
        """
        cache, held = session.take_cache()
        alpha = None
        if self.uses_ntk:
            trained = self.model.config.text_config.max_position_embeddings
            alpha = ntk_alpha(torch.tensor([len(signature)], device=self.model.device), trained)
        if cache is None or (alpha is not None and not torch.equal(cache.ntk_alpha, alpha)):
            cache, held = KeyValueCache(), np.empty(0, dtype=np.int64)
            cache.ntk_alpha = alpha
        shorter = min(len(held), len(signature))
        differing = np.flatnonzero(held[:shorter] != signature[:shorter])
        common = int(differing[0]) if len(differing) else shorter
        common = min(common, len(signature) - 1)
        cache.keep(common)
        return cache, common

    @torch.inference_mode()
    def _embed(self, chat: EncodedChat, audios, start: int, is_cancelled) -> torch.Tensor | None:
        """Embeddings [1, length, hidden_size] of the prompt from `start` on; None if cancelled between two clips."""
        parts = []
        for slot in chat.slots:
            if slot.end <= start:
                continue
            if is_cancelled():
                return None
            embeddings = self._encode(audios[slot.audio], slot.piece)
            parts.append(embeddings[max(start - slot.start, 0) :])
        ids = torch.tensor([chat.input_ids[start:]], device=self.model.device)
        return self.model.model.embed(ids, parts)


def _content_key(source: Any) -> tuple[Any, bytes]:
    """The source in a form that can be read again, and a digest of its content."""
    array, rate = source if isinstance(source, tuple) else (source, None)
    if hasattr(array, "__array__"):
        array = np.ascontiguousarray(array)
        kind = f"{rate} {array.dtype} {array.shape} ".encode()
        return source, hashlib.sha256(kind + array.tobytes()).digest()
    data = audio_lib.read_bytes(source)
    return data, hashlib.sha256(data).digest()


def _signature(chat: EncodedChat, audios: Sequence[HeardAudio]) -> np.ndarray:
    """A prompt as int64: ids, and in place of a clip's placeholders a negative number that stands for its content."""
    signature = np.array(chat.input_ids, dtype=np.int64)
    for slot in chat.slots:
        digest = hashlib.sha256(audios[slot.audio].key + slot.piece.to_bytes(4, "little")).digest()
        signature[slot.start : slot.end] = -1 - int.from_bytes(digest[:7], "little")
    return signature


def _split_notices(audios: Sequence[HeardAudio]) -> list[str]:
    return [
        f"Audio {number} is {heard.seconds:.0f} s long and was heard in {len(heard.tokens)} pieces."
        for number, heard in enumerate(audios, start=1)
        if len(heard.tokens) > 1
    ]


@lru_cache(maxsize=4)
def load(
    model: str | None = None,
    *,
    device: str = "auto",
    quantization: str = "auto",
    hub: str = "huggingface",
    offline: bool = False,
) -> AudioChat:
    """Load a model once per process and setting.

    Args:
        model: hub id or folder; None takes Qwen-Audio-Chat where there is a CUDA GPU, else the pocket model.
        device: "auto", "cuda", "mps" or "cpu".
        quantization: "auto", "none", "int8" or "int4".
        hub: "huggingface" or "modelscope".
        offline: never reach for a network.

    Raises:
        model.checkpoint.CheckpointError: one sentence on what is wrong with the model's files.
    """
    from .model.checkpoint import load_model

    if model is None:
        model = OFFICIAL if device in ("auto", "cuda") and torch.cuda.is_available() else str(POCKET)
    is_pocket = Path(model).resolve() == POCKET
    loaded, processor = load_model(model, device=device, quantization=quantization, hub=hub, offline=offline)
    name = "Pocket" if is_pocket else model
    return AudioChat(loaded, processor, name=name, precision=loaded.precision, is_pocket=is_pocket)
