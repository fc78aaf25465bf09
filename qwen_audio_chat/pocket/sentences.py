"""Sentences to be spoken: public-domain prose, definitions, quotations and generated phrases, in a fixed random order.

Prose of the 18th and 19th century has the largest share, because the model must generalise to read English.
Dictionaries add breadth of vocabulary; generated phrases add numbers, dates, names, spelling and questions.
"""

import gzip
import hashlib
import random
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import rdata

from .phrases import phrases
from .recordings import evaluation_texts
from .sources import fetch
from .spoken_form import spoken_form, transcript
from .steps import run_program

SOURCE_SHARES = {
    "austen": 0.34,
    "bible": 0.10,
    "webster": 0.14,
    "wordnet": 0.16,
    "devil": 0.02,
    "fortunes": 0.14,
    "phrases": 0.10,
}
SENTENCES = 60_000


@dataclass(frozen=True)
class Sentence:
    """One thing to say: as written, as a synthesizer reads it, as transcript, and where it comes from."""

    written: str
    spoken: str
    transcript: str
    source: str


def _austen(work: Path) -> Iterator[str]:
    """Paragraphs of the six novels, from an R lazy-load database (4 bytes of length, then zlib)."""
    data = fetch("r-cran-janeaustenr", work) / "usr/lib/R/site-library/janeaustenr/data"
    index = rdata.conversion.convert(
        rdata.parser.parse_data(zlib.decompress((data / "Rdata.rdx").read_bytes()))
        if (data / "Rdata.rdx").read_bytes()[:1] == b"x"
        else rdata.parser.parse_file(data / "Rdata.rdx")
    )
    database = (data / "Rdata.rdb").read_bytes()
    for offset, length in index["variables"].values():
        blob = zlib.decompress(database[int(offset) + 4 : int(offset) + int(length)])
        lines = rdata.conversion.convert(rdata.parser.parse_data(blob))
        yield from _paragraphs("\n".join(str(line) for line in lines))


def _bible(work: Path) -> Iterator[str]:
    """Chapters of the King James Bible without verse numbers; `_clean` drops its lists of names by their long words."""
    reader = fetch("bible-kjv", work) / "usr/bin/bible"
    text = run_program(
        [reader, "-p", fetch("bible-kjv-text", work) / "usr/lib", "gen1:1-rev22:21"],
        capture_output=True,
        text=True,
        errors="replace",
        check=True,
    ).stdout
    for chapter in re.split(r"\n\s*(?:[A-Z0-9][\w ]* \d+)\n", text):
        yield re.sub(r"\s+\d+ ", " ", re.sub(r"\s+", " ", chapter)).strip()


def _webster(work: Path) -> Iterator[str]:
    """Quotations and definitions of Webster's dictionary of 1913."""
    path = fetch("dict-gcide", work) / "usr/share/dictd/gcide.dict.dz"
    text = gzip.open(path, "rt", encoding="utf-8", errors="replace").read()
    for entry in text.split("[1913 Webster]"):
        for block in re.split(r"\n\s*\n|\n\s+(?:\d+\.|\(\w\))\s", entry):
            block = re.sub(r"^(?:\d+\.|\(\w\))\s", "", re.sub(r"\s+", " ", block).strip())
            block = re.sub(r"\s*--\s?[A-Z][\w. ]*\.?$", "", block)  # the author of a quotation
            block = re.sub(r"^\([A-Z][\w. &]*\)\s*", "", block)  # the field of a definition
            if not re.search(r"[\\\[\]{}=|/<>]|\b(?:pl|imp|See|Cf|Same|Syn|Note)\b", block):
                yield block


def _wordnet(work: Path) -> Iterator[str]:
    """Glosses and quoted examples of WordNet."""
    folder = fetch("wordnet-base", work) / "usr/share/wordnet"
    for part in ("noun", "verb", "adj", "adv"):
        for line in (folder / f"data.{part}").read_text(encoding="utf-8", errors="replace").splitlines():
            if " | " not in line:
                continue
            gloss = line.split(" | ", 1)[1]
            yield from re.findall(r'"([^"]+)"', gloss)
            yield re.sub(r"\([^)]*\)", "", re.split(r'[;"]', gloss)[0]).strip()


def _devil(work: Path) -> Iterator[str]:
    text = gzip.open(fetch("dict-devil", work) / "usr/share/dictd/devil.dict.dz", "rt", errors="replace").read()
    for block in _paragraphs(text):
        yield re.sub(r"^[A-Z' -]+, (?:[a-z]+\.)+\s*", "", block).replace("_", "")


def _fortunes(work: Path) -> Iterator[str]:
    excluded = set("ascii-art perl translate-me knghtbrd debian linuxcookie disclaimer zippy drugs".split())
    for package in ("fortunes", "fortunes-min"):
        for path in sorted((fetch(package, work) / "usr/share/games/fortunes").iterdir()):
            if path.suffix or path.name in excluded:
                continue
            for cookie in path.read_text(encoding="utf-8", errors="replace").split("\n%\n"):
                yield re.sub(r"\s+", " ", re.split(r"\n\s*--", cookie)[0]).strip()


def _paragraphs(text: str) -> Iterator[str]:
    for block in re.split(r"\n\s*\n", text):
        yield re.sub(r"\s+", " ", block).strip()


def _pieces(paragraphs: Iterable[str], rng: random.Random) -> Iterator[str]:
    """Cut prose at punctuation into pieces of 3 to 50 words: most are short, some last 20 s when spoken."""
    for paragraph in paragraphs:
        protected = re.sub(r"\b(Mr|Mrs|Dr|St|Capt|Col|Gen|Rev|Messrs)\. ", "\\1.\u2060", paragraph)
        clauses = [clause for clause in re.split(r"(?<=[,;:.!?])[\"')]*\s+", protected) if clause]
        piece: list[str] = []
        target = _target_length(rng)
        for clause in clauses:
            clause = clause.replace("\u2060", " ")
            added = clause.split()
            if piece and len(piece) + len(added) > 1.3 * target:
                yield " ".join(piece)
                piece, target = [], _target_length(rng)
            piece += added
            if len(piece) >= target or (len(piece) > 0.6 * target and clause[-1] in ".!?"):
                yield " ".join(piece)
                piece, target = [], _target_length(rng)
        if piece:
            yield " ".join(piece)


def _target_length(rng: random.Random) -> float:
    """Words in the next piece."""
    low, high = rng.choices([(4, 16), (16, 28), (28, 46)], [0.55, 0.29, 0.16])[0]
    return rng.uniform(low, high)


def _vocabulary(work: Path) -> set[str]:
    """Words in modern spelling: all of WordNet, Austen and the King James Bible."""
    vocabulary = set(re.findall(r"[a-z']+", " ".join((*_austen(work), *_bible(work))).lower()))
    for part in ("noun", "verb", "adj", "adv"):
        index = fetch("wordnet-base", work) / f"usr/share/wordnet/index.{part}"
        for line in index.read_text(encoding="utf-8").splitlines():
            vocabulary.update(line.split(" ", 1)[0].replace("-", "_").split("_"))
        exceptions = fetch("wordnet-base", work) / f"usr/share/wordnet/{part}.exc"
        vocabulary.update(line.split(" ", 1)[0] for line in exceptions.read_text(encoding="utf-8").splitlines())
    return {word for word in vocabulary if len(word) > 1 or word in ("a", "i", "o")}


def _offensive(work: Path) -> set[str]:
    """Words whose first sense WordNet calls a slur or obscene: old prose has them, and no model should learn them."""
    folder, offensive = fetch("wordnet-base", work) / "usr/share/wordnet", set()
    for part in ("noun", "verb", "adj", "adv"):
        entries = (folder / f"data.{part}").read_text(encoding="utf-8").splitlines()
        flagged = {
            line.split(" ", 1)[0]
            for line in entries
            if re.search(r"ethnic slur|(?:offensive|obscene) (?:terms?|names?|words?)\b", line)
        }
        for line in (folder / f"index.{part}").read_text(encoding="utf-8").splitlines():
            if not line.startswith(" "):
                lemma, _, count, *rest = line.split()  # ends with the offsets of its senses, the most common first
                if rest[-int(count)] in flagged:
                    offensive.update((lemma, f"{lemma}s"))
    return offensive


def _is_modern_spelling(text: str, vocabulary: set[str]) -> bool:
    """Whether the vocabulary has every word or its stem: no misprints, no obsolete spelling."""

    def is_known(word: str) -> bool:
        if word in vocabulary or word.removesuffix("'s") in vocabulary:
            return True
        stem = re.sub(r"(?:n't|'(?:ll|ve|re|d|m))$", "", word)
        if stem != word:
            return stem in vocabulary or stem in ("is", "ca", "wo", "sha", "i")
        for ending, replacements in (
            ("ies", ("y",)),
            ("es", ("", "e")),
            ("s", ("",)),
            ("ied", ("y",)),
            ("ed", ("", "e")),
            ("ing", ("", "e")),
            ("er", ("", "e")),
            ("est", ("", "e")),
            ("ly", ("",)),
            ("ness", ("",)),
        ):
            if word.endswith(ending) and any(word[: -len(ending)] + tail in vocabulary for tail in replacements):
                return True
        return re.sub(r"(.)\1(?:ed|ing|er|est)$", r"\1", word) in vocabulary

    return all(map(is_known, text.split()))


def _clean(piece: str, source: str) -> Sentence | None:
    """Normalise one piece, or reject it."""
    written = re.sub(r"[_*~^]|(?<!\w)[\"'(]+|[\"')]+(?!\w)| -+(?= |$)", " ", piece)
    written = re.sub(r"\s+", " ", written).strip(" ,;:-")
    if not written or "\ufffd" in written or written.isupper():
        return None
    spoken = spoken_form(written)
    text = transcript(spoken)
    if text is None or not 3 <= len(text.split()) <= 55 or max(map(len, text.split())) > 18 or len(text) > 320:
        return None
    return Sentence(written, spoken, text, source)


def ngrams(text: str, length: int = 6) -> set[tuple[str, ...]]:
    """All sequences of `length` words in a text; a shorter text is one sequence."""
    tokens = text.split()
    return {tuple(tokens[start : start + length]) for start in range(max(1, len(tokens) - length + 1))}


def sentences(work: Path, total: int = SENTENCES, seed: int = 1) -> list[Sentence]:
    """All sentences of the recipe, in an order that depends on the seed alone.

    Args:
        work: work folder for the packages.
        total: how many to take, in the shares of `SOURCE_SHARES`.
        seed: of the choice, the cuts and the order.

    Returns:
        The sentences. No transcript occurs twice, and none shares `ngrams` with the evaluation clips: one of those is
        read from a novel that is among the prose.
    """
    readers = {
        "austen": (_austen, True),
        "bible": (_bible, True),
        "webster": (_webster, True),
        "wordnet": (_wordnet, False),
        "devil": (_devil, True),
        "fortunes": (_fortunes, True),
    }
    chosen: dict[str, Sentence] = {}
    vocabulary, offensive = _vocabulary(work), _offensive(work)
    held_out = set().union(*map(ngrams, evaluation_texts(work)))
    for source, share in SOURCE_SHARES.items():
        rng = random.Random(f"{seed}:{source}")
        wanted = int(total * share)
        if source == "phrases":
            pieces: Iterable[str] = phrases(wanted * 2, rng)
        else:
            read, is_prose = readers[source]
            pieces = _pieces(read(work), rng) if is_prose else read(work)
        candidates = list(pieces)
        rng.shuffle(candidates)
        taken = 0
        for piece in candidates:
            if taken >= wanted:
                break
            sentence = _clean(piece, source)
            if (
                sentence
                and sentence.transcript not in chosen
                and offensive.isdisjoint(sentence.transcript.split())
                and held_out.isdisjoint(ngrams(sentence.transcript))
                and (source in ("austen", "bible", "phrases") or _is_modern_spelling(sentence.transcript, vocabulary))
            ):
                chosen[sentence.transcript] = sentence
                taken += 1
    return sorted(
        chosen.values(), key=lambda sentence: hashlib.sha256(f"{seed}{sentence.transcript}".encode()).digest()
    )
