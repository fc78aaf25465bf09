"""`AudioChat`: a loaded model that answers conversations as a stream, and computes only what is new.

What a visitor's conversation has cost already is kept in a `Session`: the audio embeddings, by content, and the
key-value cache of the last prompt and answer. Nothing is shared between two sessions.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from .audio.cutting import MAX_CLIP_SECONDS
from .ctc.beam_search import beam_search
from .ctc.forced_alignment import word_times
from .ctc.prefix_scores import JointScorer, ctc_log_probs, joint_scorer_for
from .engine.cache import KeyValueCache
from .engine.decode_step import DecodeStep
from .engine.generation import RepetitionGuard, TextStream, decode, prefill
from .engine.sampling import GenerationOptions, Sampler
from .engine.sessions import HeardAudio, Session, SessionStore, signature_of
from .model import QwenAudioForConditionalGeneration, QwenAudioProcessor
from .model.decoder import ntk_alpha
from .prompts.chatml import EncodedChat, encode_conversation
from .prompts.messages import content_parts, conversation_audios
from .prompts.questions import wants_transcript
from .prompts.tags import TimedWord
from .prompts.tokenizer import AUDIO_END, AUDIO_PLACEHOLDER, AUDIO_START
from .reply import Reply

CTC_TRANSCRIPT_SECONDS = 10.0
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
    is_pretrained: bool = False  # knows the tags of pretraining only, no dialogues


class AudioChat:
    """A model and its processor, ready to talk. Answers of several visitors may be read at the same time.

    Args:
        model, processor: as loaded by `model.checkpoint.load_model`.
        name: shown to users.
        precision: shown to users, such as "bfloat16" or "packed 8-bit".
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
        is_pretrained = getattr(model.generation_config, "chat_format", "chatml") == "raw"
        self.info = ModelInfo(name, str(model.device), precision, is_pocket, limit, is_pretrained)
        self.sessions = SessionStore(max_cache_bytes)
        eos = model.generation_config.eos_token_id
        self.stop_ids = set(eos if isinstance(eos, list) else [eos])
        self.forbidden_ids = self._unsayable_ids()
        self._lock = threading.Lock()
        self._threads = torch.get_num_threads()
        self._decode_step = DecodeStep(self.model)
        self._pool = ThreadPoolExecutor(self._threads, "decode", torch.set_num_threads, (1,))

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
        Where the model spells, a transcript is searched for (`beam_search`), whatever the options say of sampling.

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
        audios = [session.hear(source, self.processor.num_mel_bins) for source in conversation_audios(messages)]
        reply.notices += _split_notices(audios)
        chat = self._fit(reply, messages, audios, options)
        signature = signature_of(chat, audios)
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
            scorer = self._joint_scorer(messages, audios)
            yield from self._decode(reply, chat, scorer, logits, cache, options, is_cancelled, started)
        finally:
            held = np.concatenate([signature, np.array(reply.token_ids, dtype=np.int64)])[: cache.get_seq_length()]
            self.sessions.keep_cache(session, cache, held)
            session.trim_audios()

    def _decode(self, reply, chat, scorer, logits, cache, options, is_cancelled, started) -> Iterator[str]:
        limit = min(options.max_new_tokens, self.info.context_limit - len(chat.input_ids))
        if scorer is None:
            sampler = Sampler(options, chat.input_ids, self.forbidden_ids, logits.device)
            tokens = decode(self.next_logits, logits, cache, sampler)
        else:
            tokens = beam_search(self._next_logits_of_each, logits, cache, scorer, limit, is_cancelled)
        guard, text, begun = RepetitionGuard(), TextStream(self.tokenizer), time.perf_counter()
        for token in tokens:
            now = time.perf_counter()
            if reply.stats.ttft_s is None:
                reply.stats.ttft_s = now - started
            if token in self.stop_ids:
                reply.finish_reason = "stop"
                break
            reply.token_ids.append(token)
            if len(reply.token_ids) > 1:
                reply.stats.tokens_per_s = (len(reply.token_ids) - 1) / (now - begun)
            if piece := text.push(token):
                reply.text += piece
                yield piece
            if guard.is_looping(token):
                reply.finish_reason = "repetition"
                break
            if len(reply.token_ids) >= limit:
                reply.finish_reason = "length"
                break
            if is_cancelled():
                reply.finish_reason = "cancelled"
                break
        else:  # the search broke off
            reply.finish_reason = "cancelled"
        if piece := text.flush():
            reply.text += piece
            yield piece

    @contextmanager
    def _lane(self, threads: int) -> Iterator[None]:
        """One pass, alone on the device. Locked per pass, not per answer: a reader who pauses blocks nobody.

        PyTorch counts threads per calling thread, and any of the server's may be the caller.
        """
        with self._lock:
            torch.set_num_threads(threads)
            try:
                yield
            finally:
                torch.set_num_threads(self._threads)

    def _forward(self, **inputs):
        with self._lane(self._threads):
            return self.model(**inputs)

    def next_logits(self, token: int, cache: KeyValueCache) -> torch.Tensor:
        """Feed one token after what the cache holds: logits [1, vocab_size] of the next."""
        with self._lane(self._decode_step.threads):
            return self._decode_step(token, cache)

    def _next_logits_of_each(self, tokens: Sequence[int], caches: Sequence[KeyValueCache]) -> Sequence[torch.Tensor]:
        """The same for several caches; steps that use one thread each run side by side."""
        with self._lane(self._decode_step.threads):
            run = self._pool.map if self._decode_step.threads == 1 else map
            return list(run(self._decode_step, tokens, caches))

    def warm_up(self) -> None:
        """Run one short answer, so that the first visitor doesn't pay for lazy initialisation."""
        message = {"role": "user", "content": [{"type": "audio", "audio": np.zeros(16000, np.float32)}]}
        self.stream([message], GenerationOptions(max_new_tokens=2)).finish()
        if self.has_ctc_head:  # silence needs no scorer: its kernel is compiled here
            letters = self.model.config.ctc_alphabet
            JointScorer(self.tokenizer, letters, torch.zeros(2, 1 + len(letters)), self.stop_ids).begin()

    @torch.inference_mode()
    def _encode(self, heard: HeardAudio, piece: int) -> torch.Tensor:
        """Embeddings [tokens, hidden_size] of one piece, computed once per session; the log-mel is then let go."""
        if heard.embeddings[piece] is None:
            mel = heard.mels[piece].to(self.model.device)[None]
            lengths = torch.tensor([mel.shape[-1]], device=mel.device)
            with self._lane(self._threads):
                heard.embeddings[piece] = self.model.get_audio_features(mel, lengths)[0]
            heard.mels[piece] = mel.new_empty(0)
        return heard.embeddings[piece]

    def _joint_scorer(self, messages, audios) -> JointScorer | None:
        """For a question that asks what is said in one audio, the scorer by that audio's letters."""
        said = ""
        if messages[-1]["role"] == "assistant":
            *messages, answer = messages
            said = "".join(part["text"] for part in content_parts(answer))
        asked = conversation_audios(messages[-1:]) or conversation_audios(messages)
        if not self.has_ctc_head or len(asked) != 1 or not messages or not wants_transcript(messages[-1]):
            return None
        frames = torch.cat([self._encode(audios[-1], piece) for piece in range(len(audios[-1].tokens))])
        return joint_scorer_for(self.model, self.tokenizer, frames, self.stop_ids, said)

    @property
    def has_ctc_head(self) -> bool:
        """Whether the model spells its audio frames, which holds transcripts to the sound and times their words."""
        return self.model.ctc_head is not None

    @property
    def transcript_seconds(self) -> float:
        """How much speech is best transcribed at a time: a model that spells is small, and loses its place in more."""
        return CTC_TRANSCRIPT_SECONDS if self.has_ctc_head else MAX_CLIP_SECONDS

    def time_words(self, text: str, source, session: Session) -> list[TimedWord]:
        """The words of a transcript with the times at which the audio spells them; for a model that `spells`.

        Args:
            text: what is said.
            source: the audio, of at most 30 s.
            session: that has heard it.
        """
        frames = self._encode(session.hear(source, self.processor.num_mel_bins), 0)
        return word_times(text, ctc_log_probs(self.model, frames).numpy(force=True), self.model.config.ctc_alphabet)

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


def _split_notices(audios: Sequence[HeardAudio]) -> list[str]:
    return [
        f"Audio {number} is {heard.seconds:.0f} s long and was heard in {len(heard.tokens)} pieces."
        for number, heard in enumerate(audios, start=1)
        if len(heard.tokens) > 1
    ]
