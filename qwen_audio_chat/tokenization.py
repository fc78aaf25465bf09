"""Tokenizers: Qwen's built from `qwen.tiktoken`, and the special tokens that any tokenizer needs for Qwen-Audio.

The tokenizer is always transformers' fast tokenizer; which tags it knows, and their ids, are its own matter.
"""

import base64
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

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


def _merges(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """The merge that makes each token of more than one byte, in the order of ranks.

    A token may be cut into two others in several ways; it is made from the two that byte-pair encoding with the
    lower ranks leaves side by side. Walking down the inner halves of both tells whether a lower merge would have
    crossed the cut.
    """
    halves, made = {}, {}  # rank -> (left, right) ranks, and back

    def stay_apart(left: int, right: int) -> bool:
        earliest = len(ranks)
        while made.get((left, right), earliest) >= earliest:
            if left > right and left in halves or right not in halves:
                if left not in halves:
                    return True
                earliest = min(earliest, left)
                left = halves[left][1]
            else:
                earliest = min(earliest, right + 1)
                right = halves[right][0]
        return False

    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        for cut in range(1, len(token)):
            left, right = ranks.get(token[:cut], rank), ranks.get(token[cut:], rank)
            if left < rank and right < rank and stay_apart(left, right):
                halves[rank], made[left, right] = (left, right), rank
                merges.append((token[:cut], token[cut:]))
                break
        else:
            if len(token) > 1:
                raise ValueError(f"Token {rank} of the vocabulary can't be reached by merges: the file is damaged.")
    return merges


def tokenizer_from_tiktoken(path: str | Path) -> PreTrainedTokenizerFast:
    """Build Qwen-Audio's tokenizer from the official `qwen.tiktoken` (lines "base64 rank").

    Raises:
        ValueError: the file is not a whole tiktoken vocabulary.
    """
    ranks = {}
    try:
        for line in Path(path).read_bytes().splitlines():
            token, rank = line.split()
            ranks[base64.b64decode(token)] = int(rank)
    except ValueError as error:
        raise ValueError(f"{path} is not a tiktoken vocabulary: download the model's files again.") from error
    if sorted(ranks.values()) != list(range(len(ranks))) or len(ranks) < 256:
        raise ValueError(f"{path} is incomplete: download the model's files again.")

    letters = _byte_letters()
    spell = lambda token: token.decode("latin-1").translate(letters)  # noqa: E731
    vocabulary = {spell(token): rank for token, rank in ranks.items()}
    merges = [(spell(a), spell(b)) for a, b in _merges(ranks)]
    backend = Tokenizer(BPE(vocabulary, merges))
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in special_tokens()])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=END_OF_TEXT, pad_token=END_OF_TEXT, padding_side="left"
    )


def _byte_letters() -> dict[int, str]:
    """GPT-2's spelling of bytes: printable Latin-1 stands for itself, the others follow from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}


def plain_tokenizer(tokenizer: PreTrainedTokenizerFast) -> Tokenizer:
    """The same vocabulary without any special token: whatever it encodes stays text. Built once per tokenizer."""
    plain = getattr(tokenizer, "_plain_tokenizer", None)
    if plain is None:
        backend = tokenizer.backend_tokenizer
        plain = Tokenizer(backend.model)
        plain.normalizer = backend.normalizer
        plain.pre_tokenizer = backend.pre_tokenizer
        tokenizer._plain_tokenizer = plain
    return plain
