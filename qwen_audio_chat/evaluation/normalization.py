"""Text normalisation, chosen by name.

Most disagreements between published error rates come from what is done to both texts before they are compared (one
paper's 1.73 is another's 1.78 on the same predictions), so the name of the normaliser stands with every result.
"""

import re
import unicodedata
from collections.abc import Callable
from functools import cache

from ..prompts.tags import TAG

CHARACTER_LANGUAGES = frozenset({"zh", "zh_tr", "ja"})
"""Languages written without spaces between words: their error rate counts characters."""

_SPACE = re.compile(r"\s+")


def normalize(text: str, name: str, language: str = "en") -> str:
    """Normalise `text` of a language (a code such as "en") by the normaliser called `name`.

    Raises:
        ValueError: there is no normaliser of that name.
    """
    if name not in NORMALIZERS:
        raise ValueError(f'There is no text normalisation "{name}"; choose one of {", ".join(NORMALIZERS)}.')
    return NORMALIZERS[name](text, language)


def _none(text: str, language: str) -> str:
    return text.strip()


def _official(text: str, language: str) -> str:
    """What evaluate_asr.py of the Qwen-Audio repository does; punctuation stays."""
    text = _SPACE.sub(" ", TAG.sub(" ", text))
    text = re.sub(r" ?([!,.?;:])", r"\1", text).strip()
    if language == "zh":
        text = _SPACE.sub("", text)
    return text.lower()


def _lower_no_punctuation(text: str, language: str) -> str:
    """Lower case; everything but letters, digits, marks and apostrophes inside words becomes a space."""
    text = TAG.sub(" ", text).lower().replace("’", "'")
    text = re.sub(r"(?<=\w)'(?=\w)", "\0", text)
    text = "".join(char if char.isalnum() or char == "\0" or _is_mark(char) else " " for char in text)
    separator = "" if language in CHARACTER_LANGUAGES else " "
    return separator.join(text.replace("\0", "'").split())


def _is_mark(char: str) -> bool:
    """Combining marks belong to their letter (Devanagari vowels, decomposed accents)."""
    return unicodedata.category(char).startswith("M")


def _whisper_english(text: str, language: str) -> str:
    return _whisper_normalizer("english")(TAG.sub(" ", text)).strip()


def _whisper_basic(text: str, language: str) -> str:
    kind = "characters" if language in CHARACTER_LANGUAGES else "basic"
    return _SPACE.sub(" ", _whisper_normalizer(kind)(TAG.sub(" ", text))).strip()


@cache
def _whisper_normalizer(kind: str) -> Callable[[str], str]:
    # Heavy: a help text shouldn't wait for it.
    from transformers.models.whisper.english_normalizer import BasicTextNormalizer, EnglishTextNormalizer

    if kind == "english":
        # Only Whisper's checkpoints hold the list of British spellings; without it, nothing needs to be downloaded.
        return EnglishTextNormalizer({})
    return BasicTextNormalizer(split_letters=kind == "characters")


NORMALIZERS: dict[str, Callable[[str, str], str]] = {
    "none": _none,
    "official": _official,
    "lower_no_punctuation": _lower_no_punctuation,
    "whisper_english": _whisper_english,
    "whisper_basic": _whisper_basic,
}

DESCRIPTIONS = {
    "none": "texts as they are, without surrounding space",
    "official": "as the released Qwen-Audio scripts: tags removed, lower case, punctuation kept; spaces removed in zh",
    "lower_no_punctuation": "lower case, punctuation and tags removed, apostrophes inside words kept",
    "whisper_english": "Whisper's English normaliser (numbers, contractions, titles) without its list of spellings",
    "whisper_basic": "Whisper's basic normaliser (lower case, symbols removed), split to characters in zh and ja",
}
