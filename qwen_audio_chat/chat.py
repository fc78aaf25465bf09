"""`AudioChat`: a loaded model that answers conversations as a stream, and computes only what is new.

What a visitor's conversation has already cost is kept in a `Session`: the embeddings of its clips, by content, and the
key-value cache of the last prompt and answer. Nothing is shared between two sessions.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from .audio.audio import Audio
from .audio.cutting import MAX_CLIP_SECONDS
from .audio.features import num_audio_tokens
from .ctc.beam_search import beam_search
from .ctc.forced_alignment import word_times
from .ctc.joint_scorer import JointScorer, ctc_log_probs, joint_scorer_for
from .engine.engine import Engine
from .engine.generation import RepetitionGuard, TextStream, decode
from .engine.sampling import GenerationOptions, Sampler
from .engine.sessions import Session, SessionStore
from .errors import UserError
from .model import QwenAudioForConditionalGeneration, QwenAudioProcessor
from .prompts.chatml import EncodedChat, encode_conversation
from .prompts.messages import Message, conversation_audios, message_text
from .prompts.questions import wants_transcript
from .prompts.tags import TimedWord
from .prompts.tokenizer import AUDIO_END, AUDIO_PLACEHOLDER, AUDIO_START, token_ids
from .reply import Reply

CTC_TRANSCRIPT_SECONDS = 10.0  # of speech that a small model with a CTC head transcribes at a time
RESERVED_FOR_ANSWER = 256  # tokens of the context that a prompt leaves free, if the answer may be that long


class ChatError(UserError):
    """Why a conversation can't be answered."""


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
        max_cache_bytes: bound on the key-value caches kept between turns, over all sessions (default: 2 GiB, or 60 % of
            what is free on a GPU once the model is loaded).
    """

    def __init__(
        self,
        model: QwenAudioForConditionalGeneration,
        processor: QwenAudioProcessor,
        *,
        name: str,
        precision: str,
        is_pocket: bool = False,
        max_cache_bytes: int | None = None,
    ):
        self.model = model.eval()
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.engine = Engine(self.model)
        is_pretrained = getattr(model.generation_config, "chat_format", "chatml") == "raw"
        self.info = ModelInfo(name, str(model.device), precision, is_pocket, self.engine.context_limit, is_pretrained)
        self.sessions = SessionStore(max_cache_bytes or self.engine.spare_cache_bytes())
        eos = model.generation_config.eos_token_id
        self.stop_ids = set(eos if isinstance(eos, list) else [eos])
        self.forbidden_ids = self._unsayable_ids()

    def _unsayable_ids(self) -> list[int]:
        """Ids an answer can't hold: rows without a token, and the frame of an audio."""
        frame = token_ids(self.tokenizer, AUDIO_START, AUDIO_END, AUDIO_PLACEHOLDER)
        return [*frame, *range(len(self.tokenizer), self.model.config.text_config.vocab_size)]

    def new_session(self) -> Session:
        """A visitor's own memory of work done. Close it when the visitor leaves."""
        return self.sessions.open()

    def close_session(self, session: Session) -> None:
        """Free a session's embeddings and key-value cache; an answer under way continues without keeping any."""
        self.sessions.close(session)

    @property
    def has_ctc_head(self) -> bool:
        """Whether the model has a CTC head, by which transcripts are searched and timed."""
        return self.engine.has_ctc_head

    @property
    def transcript_seconds(self) -> float:
        """How much speech is best transcribed at a time: a small model loses its place in more."""
        return CTC_TRANSCRIPT_SECONDS if self.has_ctc_head else MAX_CLIP_SECONDS

    def stream(
        self,
        conversation: Sequence[Message],
        options: GenerationOptions = GenerationOptions(),  # noqa: B008 - frozen
        *,
        session: Session | None = None,
        cancel: threading.Event | None = None,
    ) -> Reply:
        """Answer the last message of a conversation, or continue it if it is the assistant's.

        The work is done while the reply is read. Setting `cancel` ends it within one token, or within one layer of a
        pass over audio or prompt. The conversation itself is never changed: append `reply.text` and `reply.token_ids`
        to keep an answer. Where the model has a CTC head, a transcript is found by beam search, whatever the options
        say about sampling.

        Raises:
            ChatError: while reading, the conversation is empty or too long for the model.
            AudioError: while reading, an audio can't be used.
        """
        is_cancelled = cancel.is_set if cancel is not None else lambda: False
        messages, session = list(conversation), session or Session()
        return Reply(
            self.info.context_limit, lambda reply: self._answer(reply, messages, options, session, is_cancelled)
        )

    def _answer(self, reply: Reply, messages, options, session: Session, is_cancelled) -> Iterator[str]:
        started = time.perf_counter()
        if not messages or messages[-1]["role"] == "system":
            raise ChatError("Ask a question or add an audio first.")
        audios = [Audio.load(source) for source in conversation_audios(messages)]
        prompt = self._fit(reply, messages, audios, options)
        signature = prompt_signature(prompt, audios)
        kept, held, turn = self.sessions.take_cache(session)
        cache, reused = self.engine.reuse(kept, held, signature)
        reply.stats.prompt_tokens, reply.stats.reused_tokens = len(prompt.input_ids), reused
        limit = min(options.max_new_tokens, self.info.context_limit - len(prompt.input_ids))

        is_intact = False  # an error within a pass leaves layers of unequal length, which nobody may use again
        try:
            logits = None
            embeddings = self._embed(prompt, audios, session, reused, is_cancelled)
            if embeddings is not None:
                logits = self.engine.prefill(embeddings, cache, is_cancelled)
            if logits is None:
                reply.finish_reason = "cancelled"
                is_intact = True
                return
            scorer = self._joint_scorer(messages, audios, session)
            if scorer is None:
                sampler = Sampler(options, prompt.input_ids, self.forbidden_ids, logits.device)
                tokens = decode(self.engine.next_logits, logits, cache, sampler)
            else:
                tokens = beam_search(self.engine.next_logits_of_each, logits, cache, scorer, limit, is_cancelled)
            yield from self._write(reply, tokens, limit, is_cancelled, started)
            is_intact = True
        except GeneratorExit:  # the reader left between two tokens
            is_intact = True
            raise
        finally:
            if is_intact:
                positions = np.concatenate([signature, np.array(reply.token_ids, dtype=np.int64)])
                self.sessions.keep_cache(session, cache, positions[: cache.get_seq_length()], turn)
            self.sessions.trim(session)

    def _write(self, reply: Reply, tokens: Iterator[int], limit: int, is_cancelled, started: float) -> Iterator[str]:
        """Tokens to text, until the answer ends; fills in the reply."""
        guard, text, first = RepetitionGuard(), TextStream(self.tokenizer), time.perf_counter()
        for token in tokens:
            now = time.perf_counter()
            if reply.stats.ttft_s is None:
                reply.stats.ttft_s = now - started
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
            if len(reply.token_ids) >= limit:
                reply.finish_reason = "length"
                break
            if is_cancelled():
                reply.finish_reason = "cancelled"
                break
        else:  # the search was cancelled
            reply.finish_reason = "cancelled"
        if piece := text.flush():
            reply.text += piece
            yield piece

    def warm_up(self) -> None:
        """Run one short answer, so that the first visitor doesn't pay for lazy initialisation."""
        silence = Audio(np.zeros(16000, np.float32))
        message: Message = {"role": "user", "content": [{"type": "audio", "audio": silence}]}
        self.stream([message], GenerationOptions(max_new_tokens=2)).finish()
        if self.has_ctc_head:  # silence needs no scorer: compile its kernel here
            alphabet = self.model.config.ctc_alphabet
            JointScorer(self.tokenizer, alphabet, torch.zeros(2, 1 + len(alphabet)), self.stop_ids).begin()

    def time_words(self, text: str, audio: Audio, session: Session) -> list[TimedWord]:
        """The words of a transcript with the times at which the CTC head finds them; for a model that `has_ctc_head`.

        Args:
            text: what is said.
            audio: of at most 30 s.
            session: keeps the audio's embeddings.
        """
        frames = self._encode(audio, session, lambda: False)
        assert frames is not None, "nobody cancels this"
        log_probs = ctc_log_probs(self.model, frames)
        return word_times(text, log_probs.numpy(force=True), self.model.config.ctc_alphabet)

    def _encode(self, clip: Audio, session: Session, is_cancelled: Callable[[], bool]) -> torch.Tensor | None:
        """Embeddings [tokens, hidden_size] of a clip of at most 30 s, computed once per session; None if cancelled."""

        def encode() -> torch.Tensor | None:
            embeddings = self.engine.encode(clip.log_mel(self.processor.num_mel_bins), is_cancelled)
            clip.release()
            return embeddings

        return self.sessions.embedding(session, clip.key, encode)

    def _embed(self, prompt: EncodedChat, audios, session: Session, start: int, is_cancelled) -> torch.Tensor | None:
        """Embeddings [1, length, hidden_size] of the prompt from `start` on; None if cancelled."""
        clips = []
        for slot in prompt.slots:
            if slot.end <= start:
                continue
            clip = self._encode(audios[slot.audio].pieces()[slot.piece], session, is_cancelled)
            if clip is None:
                return None
            clips.append(clip[max(start - slot.start, 0) :])
        return self.engine.embed(prompt.input_ids[start:], clips)

    def _joint_scorer(self, messages: Sequence[Message], audios, session: Session) -> JointScorer | None:
        """For a question that asks what is said in one audio, the scorer of transcripts by that audio's CTC output."""
        said = ""
        if messages[-1]["role"] == "assistant":
            *messages, answer = messages
            said = message_text(answer)
        asked = conversation_audios(messages[-1:]) or conversation_audios(messages)
        if not self.has_ctc_head or len(asked) != 1 or not messages or not wants_transcript(messages[-1]):
            return None
        pieces = [self._encode(piece, session, lambda: False) for piece in audios[-1].pieces()]  # known from the prompt
        frames = torch.cat([piece for piece in pieces if piece is not None])
        return joint_scorer_for(self.model, self.tokenizer, frames, self.stop_ids, said)

    def _fit(self, reply: Reply, messages: Sequence[Message], audios: Sequence[Audio], options) -> EncodedChat:
        """Encode the conversation, without its oldest turns where it would not fit; notes what was left out."""
        tokens = [[num_audio_tokens(piece.num_samples) for piece in audio.pieces()] for audio in audios]
        reply.notices += [
            f"Audio {number} is {audio.seconds:.0f} s long and was heard in {len(pieces)} pieces."
            for number, (audio, pieces) in enumerate(zip(audios, tokens, strict=True), start=1)
            if len(pieces) > 1
        ]
        turns = sum(message["role"] == "user" for message in messages)
        room = self.info.context_limit - min(options.max_new_tokens, RESERVED_FOR_ANSWER)
        needed = 0
        for drop in range(max(turns, 1)):
            prompt = encode_conversation(
                self.tokenizer,
                messages,
                tokens,
                drop_turns=drop,
                continue_answer=messages[-1]["role"] == "assistant",
            )
            needed = len(prompt.input_ids)
            if needed <= room:
                if drop:
                    reply.dropped_turns = drop
                    s = "" if drop == 1 else "s"
                    reply.notices.append(f"The context is full: the oldest {drop} turn{s} left it.")
                return prompt
        raise ChatError(
            "This needs {needed} tokens but the model holds {room} (25 per second of audio): "
            "use shorter audio, fewer clips or a shorter text.",
            needed=needed,
            room=room,
        )


def prompt_signature(prompt: EncodedChat, audios: Sequence[Audio]) -> np.ndarray:
    """A prompt as int64: ids, and in place of a clip's placeholders a negative number that stands for its content."""
    signature = np.array(prompt.input_ids, dtype=np.int64)
    for slot in prompt.slots:
        clip = audios[slot.audio].pieces()[slot.piece]
        signature[slot.start : slot.end] = -1 - int.from_bytes(clip.key[:7], "little")
    return signature
