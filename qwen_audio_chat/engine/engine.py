"""`Engine`: encodes clips, prefills prompts in chunks, decodes; one pass on the device at a time, no text, no files."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch

from ..model import QwenAudioForConditionalGeneration
from ..model.decoder import ntk_alpha
from .cache import KeyValueCache
from .decode_step import DecodeStep

PREFILL_CHUNK = {"cuda": 2048}  # tokens in one pass, by device: more for a GPU, which waits for Python between passes
DEFAULT_PREFILL_CHUNK = 512


class _Cancelled(Exception):
    """A pass was cancelled between two layers."""


class Engine:
    """Runs a model for several callers at a time: the device is locked for each pass, not for each answer.

    Args:
        model: in evaluation mode, its weights in place for good.

    Attributes:
        context_limit: positions that a prompt and its answer may take together.
    """

    def __init__(self, model: QwenAudioForConditionalGeneration):
        self.model = model
        config = model.config.text_config
        # Qwen-7B was trained at 2,048 positions and reaches 8,192 by log-n attention scaling and dynamic NTK.
        self._uses_ntk = getattr(config, "use_dynamic_ntk", False)
        self._trained_positions = config.max_position_embeddings
        self.context_limit = self._trained_positions * (4 if self._uses_ntk else 1)
        self._lock = threading.Lock()
        self._threads = torch.get_num_threads()
        self._decode_step = DecodeStep(model)
        self._pool = ThreadPoolExecutor(self._threads, "decode", torch.set_num_threads, (1,))
        self._is_cancelled: Callable[[], bool] = _never
        # A pass over a long prompt takes minutes for a large model on a CPU: a cancel ends it within one layer.
        for layer in (*model.model.audio_tower.layers, *cast(Any, model.model.language_model).layers):
            layer.register_forward_pre_hook(self._stop_if_cancelled)

    def spare_cache_bytes(self) -> int:
        """Memory for key-value caches between turns: 2 GiB, or 60 % of what is free on the model's GPU."""
        if self.model.device.type != "cuda":
            return 2 * 2**30
        free, _ = torch.cuda.mem_get_info(self.model.device)
        return int(0.6 * free)

    @property
    def has_ctc_head(self) -> bool:
        """Whether the model has a CTC head, by which transcripts are searched and timed."""
        return self.model.ctc_head is not None

    @contextmanager
    def _lane(self, threads: int, is_cancelled: Callable[[], bool] | None = None) -> Iterator[None]:
        """One pass, alone on the device. A caller who pauses between two passes blocks nobody.

        PyTorch keeps the number of threads per calling thread, and any thread of a server may be the caller.
        """
        with self._lock:
            torch.set_num_threads(threads)
            self._is_cancelled = is_cancelled or _never
            try:
                yield
            finally:
                self._is_cancelled = _never
                torch.set_num_threads(self._threads)

    def _stop_if_cancelled(self, *_) -> None:
        if self._is_cancelled():
            raise _Cancelled

    @torch.inference_mode()
    def encode(self, log_mel: torch.Tensor, is_cancelled: Callable[[], bool]) -> torch.Tensor | None:
        """Embeddings [tokens, hidden_size] of one clip from its log-mel [mel bins, frames]; None if cancelled."""
        features = log_mel.to(self.model.device)[None]
        lengths = torch.tensor([features.shape[-1]], device=features.device)
        try:
            with self._lane(self._threads, is_cancelled):
                return self.model.get_audio_features(features, lengths)[0]
        except _Cancelled:
            return None

    @torch.inference_mode()
    def embed(self, ids: Sequence[int], clips: Sequence[torch.Tensor]) -> torch.Tensor:
        """Embeddings [1, len(ids), hidden_size] of a prompt, its placeholders filled with the clips' in order."""
        return self.model.model.embed(torch.tensor([list(ids)], device=self.model.device), list(clips))

    @torch.inference_mode()
    def prefill(
        self, embeddings: torch.Tensor, cache: KeyValueCache, is_cancelled: Callable[[], bool]
    ) -> torch.Tensor | None:
        """Feed [1, length, hidden_size] after what the cache holds: logits [1, vocabulary], None if cancelled.

        A cancel takes effect within one layer; the cache then holds the part of the prompt that was finished.
        """
        logits = None
        for chunk in embeddings.split(PREFILL_CHUNK.get(self.model.device.type, DEFAULT_PREFILL_CHUNK), dim=1):
            finished = cache.get_seq_length()
            try:
                with self._lane(self._threads, is_cancelled):
                    outputs = self.model(inputs_embeds=chunk, past_key_values=cache, use_cache=True, logits_to_keep=1)
            except _Cancelled:
                cache.keep(finished)
                return None
            logits = outputs.logits[:, -1]
        return logits

    def next_logits(self, token: int, cache: KeyValueCache) -> torch.Tensor:
        """Feed one token after what the cache holds: logits [1, vocabulary] of the next."""
        with self._lane(self._decode_step.threads):
            return self._decode_step(token, cache)

    def next_logits_of_each(self, tokens: Sequence[int], caches: Sequence[KeyValueCache]) -> Sequence[torch.Tensor]:
        """`next_logits` for several caches; steps that use one thread each run side by side."""
        with self._lane(self._decode_step.threads):
            run = self._pool.map if self._decode_step.threads == 1 else map
            return list(run(self._decode_step, tokens, caches))

    def reuse(
        self, cache: KeyValueCache | None, held: np.ndarray | None, signature: np.ndarray
    ) -> tuple[KeyValueCache, int]:
        """The cache to start a prompt from, cut to the longest common prefix, and the length of that prefix.

        At least one position is left to compute, for its logits. Where dynamic NTK changes the rotary base, the prefix
        is computed again.

        Args:
            cache, held: a cache and the signature of what it holds, or None.
            signature: of the prompt, int64 with one number for each position.
        """
        alpha = None
        if self._uses_ntk:
            alpha = ntk_alpha(torch.tensor([len(signature)], device=self.model.device), self._trained_positions)
        if cache is None or held is None or not _same_base(cache.ntk_alpha, alpha):
            cache, held = KeyValueCache(ntk_alpha=alpha), np.empty(0, dtype=np.int64)
        shorter = min(len(held), len(signature))
        differing = np.flatnonzero(held[:shorter] != signature[:shorter])
        common = int(differing[0]) if len(differing) else shorter
        common = min(common, len(signature) - 1)
        cache.keep(common)
        return cache, common


def _never() -> bool:
    return False


def _same_base(first: torch.Tensor | None, second: torch.Tensor | None) -> bool:
    """Whether two factors on the rotary base are equal; None where the base never changes."""
    return first is second if first is None or second is None else torch.equal(first, second)
