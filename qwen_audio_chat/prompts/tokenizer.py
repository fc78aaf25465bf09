"""Tokenizers: Qwen's, built from `qwen.tiktoken`, and the special tokens that any tokenizer needs for Qwen-Audio.

A tokenizer is always a fast tokenizer of transformers; it decides which tags it knows and what their ids are.
"""

import base64
from pathlib import Path
from weakref import WeakKeyDictionary

from tokenizers import Tokenizer, normalizers
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import TikTokenConverter

from ..errors import UserError

AUDIO_START, AUDIO_END, AUDIO_PLACEHOLDER = "<audio>", "</audio>", "[[[AUDIO:modality]]]"
END_OF_TEXT, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"

# Qwen's pre-tokenization: contractions, words, single digits, punctuation, line ends, spaces.
SPLIT_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

TASK_TAGS = (
    ["startoftranscript", "startofanalysis", "translate", "transcribe", "caption", "keyword"]
    + ["unknown", "en", "zh", "de", "es", "ko", "fr", "ja", "it", "zh_tr"]
    + ["notimestamps", "sil", "timestamps"]
)
INSTRUCTION_TAGS = (
    ["caption_audiocaps", "caption_clotho", "audioset_ontology", "caption_plain", "itn", "wo_itn"]
    + ["startofentityvalue", "endofentityvalue", "startofentitytype", "endofentitytype", "named_entity_recognition"]
    + ["audio_grounding", "startofword", "endofword", "delim", "emotion_recognition", "music_description"]
    + ["note_analysis", "pitch"]
    + [f"midi_pitch_{n}" for n in range(128)]
    + ["velocity"]
    + [f"midi_velocity_{n}" for n in range(128)]
    + ["sonic", "instrument", "speaker_meta", "song_meta", "question", "answer", "choice", "scene", "event"]
    + ["vocal_classification", "speech_understanding", "scenario", "action", "entities", "speech_edit"]
)


def time_tags(step: float = 0.01, last: float = 30.0) -> list[str]:
    """Names of the time tokens: "0.00", ..., "30.00" in steps of `step` seconds (0.04 is one audio frame)."""
    return [f"{n * step:.2f}" for n in range(round(last / step) + 1)]


def special_tokens(time_step: float = 0.01, extra: int = 205) -> list[str]:
    """All special tokens in the order of the released model, whose first id is 151643.

    The pocket model takes the same list with a coarser `time_step` and without the `extra` reserved ones.
    """
    names = [f"extra_{n}" for n in range(extra)]
    tags = TASK_TAGS + time_tags(time_step) + INSTRUCTION_TAGS
    return (
        [END_OF_TEXT, IM_START, IM_END]
        + [f"<|{name}|>" for name in names]
        + [AUDIO_PLACEHOLDER]
        + [f"<|{name}|>" for name in tags]
        + [AUDIO_START, AUDIO_END]
    )


def tokenizer_from_tiktoken(path: str | Path) -> PreTrainedTokenizerFast:
    """Build Qwen-Audio's tokenizer from the official `qwen.tiktoken` (lines "base64 rank").

    Raises:
        UserError: the file is not a complete tiktoken vocabulary.
    """
    ranks = {}
    try:
        for line in Path(path).read_bytes().splitlines():
            token, rank = line.split()
            ranks[base64.b64decode(token)] = int(rank)
    except ValueError as error:
        raise UserError("{path} is not a tiktoken vocabulary: download the model's files again.", path=path) from error
    if sorted(ranks.values()) != list(range(len(ranks))) or len(ranks) < 256:
        raise UserError("{path} is incomplete: download the model's files again.", path=path)

    converter = TikTokenConverter(pattern=SPLIT_PATTERN, extra_special_tokens=special_tokens())
    converter.load_tiktoken_bpe = lambda tiktoken_url: ranks  # read above, which saves the dependency on tiktoken
    backend = converter.converted()
    backend.normalizer = normalizers.NFC()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=END_OF_TEXT, pad_token=END_OF_TEXT, padding_side="left"
    )


def token_ids(tokenizer: PreTrainedTokenizerFast, *tokens: str) -> list[int]:
    """Ids of special tokens; the id of the unknown token, or None, for a token that the tokenizer lacks."""
    return list(tokenizer.convert_tokens_to_ids(list(tokens)))  # pyright: ignore[reportArgumentType]  a list for a list


_PLAIN_TOKENIZERS: "WeakKeyDictionary[PreTrainedTokenizerFast, Tokenizer]" = WeakKeyDictionary()


def plain_tokenizer(tokenizer: PreTrainedTokenizerFast) -> Tokenizer:
    """The same vocabulary without any special token: whatever it encodes stays text. Built once per tokenizer."""
    plain = _PLAIN_TOKENIZERS.get(tokenizer)
    if plain is None:
        backend = tokenizer.backend_tokenizer
        plain = _PLAIN_TOKENIZERS[tokenizer] = Tokenizer(backend.model)
        plain.normalizer = backend.normalizer
        plain.pre_tokenizer = backend.pre_tokenizer
    return plain
