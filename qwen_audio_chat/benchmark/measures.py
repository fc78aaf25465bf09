"""The measurements: each function times one thing on a loaded `AudioChat`, several times, and returns medians."""

import resource
import sys
import threading
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from ..audio.decoding import SAMPLE_RATE, load_audio, to_wav_bytes
from ..audio.features import log_mel
from ..chat import AudioChat
from ..engine.cache import KeyValueCache
from ..engine.sampling import GenerationOptions
from ..model.quantized_layers import QuantizedLinear
from ..prompts.conversation import Conversation
from ..resources import EXAMPLES

QUESTIONS = (
    "What do the people say?",
    "Which of the three is the shortest?",
    "Say it again in other words.",
    "Is there any music?",
    "Who speaks in Audio 2?",
)


def timed(call: Callable[[], object], repeats: int) -> float:
    """Median seconds of a call, after a first one that isn't counted."""
    call()
    return median(_seconds(call) for _ in range(repeats))


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def speech(seconds: float, number: int = 0) -> np.ndarray:
    """Speech of any length from the example clips, float32 at 16 kHz; `number` says which clip comes first."""
    clips = [load_audio(path) for path in sorted(EXAMPLES.glob("*.flac"))]
    order = np.roll(np.arange(len(clips)), -number)
    return np.resize(np.concatenate([clips[i] for i in order]), round(seconds * SAMPLE_RATE))


def read_gb_per_s(megabytes: int = 512) -> float:
    """How fast this machine reads memory, with as many threads as PyTorch has: the best of seven passes."""
    data = torch.ones(megabytes * 2**17, dtype=torch.int64)
    return data.nbytes / min(_seconds(data.sum) for _ in range(7)) / 1e9


def matmul_gflop_per_s(dtype: torch.dtype, device: torch.device) -> float:
    """How fast this machine multiplies large matrices: the best of seven products."""
    a, b = (torch.randn(1024, 1024, dtype=dtype, device=device) for _ in range(2))
    return 2 * 1024**3 / min(_seconds(lambda: (a @ b).sum().item()) for _ in range(7)) / 1e9


def gb_per_token(chat: AudioChat) -> float:
    """GB of weights that decoding reads for each token: the layers of the language model and its output layer."""
    layers = [*chat.model.model.language_model.layers.modules(), chat.model.lm_head]
    return sum(_weight_bytes(layer) for layer in layers if hasattr(layer, "in_features")) / 1e9


def _weight_bytes(layer: Any) -> int:
    if isinstance(layer, QuantizedLinear):
        return layer.nbytes
    state = getattr(layer.weight, "quant_state", None)  # bitsandbytes' 4 bits
    return layer.weight.nbytes + (state.absmax.nbytes if state is not None else 0)


def peak_rss_mib() -> float:
    """The largest memory that this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


@torch.inference_mode()
def encoder_seconds(chat: AudioChat, clip_s: float, repeats: int) -> tuple[float, float]:
    """(seconds, GFLOP) to encode and project a clip of `clip_s` seconds."""
    mel = log_mel(speech(clip_s), chat.processor.num_mel_bins).to(chat.model.device)[None]
    lengths = torch.tensor([mel.shape[-1]], device=mel.device)
    with FlopCounterMode(display=False) as counter:
        chat.model.get_audio_features(mel, lengths)
    seconds = timed(lambda: chat.model.get_audio_features(mel, lengths)[0].sum().item(), repeats)
    return seconds, counter.get_total_flops() / 1e9


def times_to_first_token(chat: AudioChat, repeats: int, clip_s: float, new_tokens: int) -> dict[str, Any]:
    """Time to first token of five turns about three clips, in three ways that differ in what a session reuses.

    All ways see the same conversation, with the answers of the way that reuses everything.

    Returns:
        Lists over turns, in seconds: `ttft_s`, `ttft_without_reuse_s` (every turn decodes, encodes and computes
        everything again) and `ttft_cached_features_s` (reuses audio embeddings, but not the key-value cache).
        Also `prompt_tokens` and `reused_tokens` of each turn, and `identical_answers`: the share of turns for which
        all three ways generate the same tokens.
    """
    options = GenerationOptions(max_new_tokens=new_tokens)
    ways = ("ttft_s", "ttft_without_reuse_s", "ttft_cached_features_s")
    seconds: dict[str, list[list[float]]] = {way: [[] for _ in QUESTIONS] for way in ways}
    prompts, reused, identical = [], [], []
    for _ in range(repeats):
        session, session_without_cache = chat.new_session(), chat.new_session()
        conversation, prompts, reused = Conversation(), [], []
        for turn, question in enumerate(QUESTIONS):
            clips = [to_wav_bytes(speech(clip_s, number)) for number in range(3)] if turn == 0 else []
            conversation.ask(question, clips)
            chat.sessions.take_cache(session_without_cache)
            replies = [
                chat.stream(conversation, options, session=each).finish()
                for each in (session, None, session_without_cache)
            ]
            for way, reply in zip(ways, replies, strict=True):
                seconds[way][turn].append(reply.stats.ttft_s or 0.0)
            prompts.append(replies[0].stats.prompt_tokens)
            reused.append(replies[0].stats.reused_tokens)
            identical.append(all(reply.token_ids == replies[0].token_ids for reply in replies))
            conversation.answer(replies[0].text, replies[0].token_ids)
        chat.close_session(session)
        chat.close_session(session_without_cache)
    medians = {way: [median(turn) for turn in turns] for way, turns in seconds.items()}
    return medians | {
        "prompt_tokens": prompts,
        "reused_tokens": reused,
        "identical_answers": sum(identical) / len(identical),
    }


@torch.inference_mode()
def ms_per_token(chat: AudioChat, context: int, tokens: int) -> float:
    """Median milliseconds of a decode step, after `context` positions of random keys and values."""
    cache = random_cache(chat, context)
    steps = [_seconds(lambda: chat.engine.next_logits(0, cache).argmax().item()) for _ in range(tokens + 1)]
    return 1000 * median(steps[1:])


def random_cache(chat: AudioChat, length: int) -> KeyValueCache:
    """A key-value cache of the size that a prompt of `length` tokens leaves, with random values."""
    cache, layers = KeyValueCache(), chat.model.model.language_model.layers
    config = chat.model.config.text_config
    for index, layer in enumerate(layers):
        shape = (1, config.num_key_value_heads, length, layer.self_attn.head_dim)
        states = torch.randn(shape, dtype=chat.model.dtype, device=chat.model.device)
        cache.update(states, states, index)
    return cache


def tokens_per_s(chat: AudioChat, visitors: int, new_tokens: int) -> float:
    """Tokens per second of all `visitors` together, who ask about a clip of 5 s at the same time."""
    options = GenerationOptions(max_new_tokens=new_tokens)
    clip, counts = speech(5.0), []

    def visit() -> None:
        counts.append(len(chat.stream(Conversation().ask(QUESTIONS[0], [clip]), options).finish().token_ids))

    threads = [threading.Thread(target=visit) for _ in range(visitors)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - start)
