"""Collect speech in other languages, to translate into English and to name the language.

    python -m qwen_audio_chat.pocket languages

Two children's programs have recorded object names with their English text; telephone prompts add sentences; espeak-ng
adds languages and voices where recordings are few. Translation is split by content, so that a held-out phrase is never
trained on in any language; spoken language is split by speaker where a language has several sources. A clip that is
held out for one of the tasks isn't used to train the other.
"""

import argparse
import random
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from ..audio.decoding import SAMPLE_RATE
from ..prompts.tags import LANGUAGES, TaskPrompt
from .sentences import Sentence
from .shards import ENGLISH, Line, clip_line, hash_fraction, write_clip, write_manifest
from .sources import fetch
from .speech import utter
from .spoken_form import plain_text
from .steps import add_work_argument
from .synthesizers import Espeak
from .waveforms import read_waveform, trim

NAMES = {
    "en": "English", "fr": "French", "de": "German", "es": "Spanish", "it": "Italian", "ru": "Russian",
    "ro": "Romanian", "ca": "Catalan", "bg": "Bulgarian", "el": "Greek", "uk": "Ukrainian", "da": "Danish",
    "lt": "Lithuanian", "nn": "Norwegian", "sl": "Slovenian", "nl": "Dutch", "be": "Belarusian", "pt": "Portuguese",
    "fi": "Finnish", "sv": "Swedish", "ja": "Japanese", "ko": "Korean", "zh": "Chinese",
}  # fmt: skip
# Language → key of its texts, espeak-ng's voice: languages with few recordings, and three with many, lest a synthetic
# voice give the language away.
SYNTHETIC = {"de": ("de", "de"), "it": ("it", "it"), "ja": ("ja", "ja"), "ko": ("ko", "ko"), "zh": ("zh_CN", "cmn"),
             "pt": ("pt", "pt"), "es": ("es", "es"), "fr": ("fr", "fr-fr"), "ru": ("ru", "ru")}  # fmt: skip
SYNTHETIC_SHARE = 0.35  # of the texts
WHICH_LANGUAGE = TaskPrompt("question", "unknown", question="Which language is spoken?")
MIN_SECONDS, MAX_SECONDS = 0.35, 20.0


class Recording(NamedTuple):
    """A clip in some language.

    Attributes:
        waveform: float32 [samples] at 16 kHz.
        english: what it means, "" where that isn't known.
        source: package or program that it comes from.
    """

    identifier: str
    waveform: np.ndarray
    language: str
    english: str
    source: str


def tuxpaint(work: Path) -> Iterator[Recording]:
    """Object names: `<object>_desc_<language>.ogg` beside `<object>.txt`, whose first line is English."""
    stamps = fetch("tuxpaint-stamps-default", work) / "usr/share/tuxpaint/stamps"
    for path in sorted(stamps.rglob("*_desc_*.ogg")):
        name, _, language = path.stem.partition("_desc_")
        text = path.with_name(f"{name}.txt")
        if language not in NAMES or not text.exists():
            continue
        english = text.read_text(encoding="utf-8", errors="replace").splitlines()[0]
        identifier = "-".join((*path.relative_to(stamps).parent.parts, name))
        yield from _read(f"tuxpaint-{language}-{identifier}", path, language, english, "tuxpaint-stamps-default")
    for path in sorted((stamps / "symbols/math").glob("[0-9]_*.ogg")):  # digits, in more languages
        digit, _, language = path.stem.partition("_")
        language = {"zh_tw": "zh", "nb": "nn"}.get(language, language)
        if language in NAMES:
            yield from _read(f"tuxpaint-{path.stem}", path, language, digit, "tuxpaint-digits")


def ktuberling(work: Path) -> Iterator[Recording]:
    """Object names of a picture game; its sounds have English names: `egypt_palmtree` is a palm tree."""
    folder = fetch("ktuberling-data", work) / "usr/share/ktuberling/sounds"
    compounds = {
        "palmtree": "palm tree",
        "fallingstar": "falling star",
        "moonwalker": "moon walker",
        "broccolli": "broccoli",
    }
    for theme in sorted(folder.glob("*.soundtheme")):
        if theme.stem not in NAMES:
            continue
        for sound in ElementTree.parse(theme).getroot().iter("sound"):
            name, path = sound.attrib["name"], folder / sound.attrib["file"]
            english = re.sub(r"\d+$", "", name.rsplit("_", 1)[-1])
            english = compounds.get(english, english)
            if path.exists():
                identifier = f"ktuberling-{theme.stem}-{name}"
                yield from _read(identifier, path, theme.stem, english, "ktuberling-data")


def telephone(work: Path) -> Iterator[Recording]:
    """Prompts in Spanish, French, Italian, Russian and English, without their meaning."""
    for language in ("en", "es", "fr", "it", "ru"):
        folder = next((fetch(f"asterisk-core-sounds-{language}-wav", work) / "usr/share/asterisk/sounds").iterdir())
        for path in sorted(folder.glob("*.wav")):
            yield from _read(f"asterisk-{language}-{path.stem}", path, language, "", f"asterisk-{language}")


def synthetic(work: Path) -> Iterator[Recording]:
    """Translated object names spoken by espeak-ng, in voices drawn for each clip."""
    stamps = fetch("tuxpaint-stamps-default", work) / "usr/share/tuxpaint/stamps"
    espeak = Espeak()
    for path in sorted(stamps.rglob("*.txt")):
        english, *translations = path.read_text(encoding="utf-8", errors="replace").splitlines() or [""]
        texts = dict(line.split(".utf8=", 1) for line in translations if ".utf8=" in line)
        for language, (key, voice) in SYNTHETIC.items():
            identifier = f"espeak-{language}-{'-'.join((*path.relative_to(stamps).parent.parts, path.stem))}"
            rng = random.Random(identifier)
            if rng.random() < SYNTHETIC_SHARE and texts.get(key, "").strip():
                sentence = Sentence(english, texts[key], "", "espeak-ng")
                waveform = utter(sentence, f"{voice}+{rng.choice(espeak.variants)}", espeak, rng, perturb=True)
                if MIN_SECONDS <= len(waveform) / SAMPLE_RATE <= MAX_SECONDS:
                    yield Recording(identifier, waveform, language, english, "espeak-ng")


def _read(identifier: str, path: Path, language: str, english: str, source: str) -> Iterator[Recording]:
    try:
        waveform = trim(read_waveform(path), 0.15, 0.2)
    except soundfile.LibsndfileError:
        return
    if MIN_SECONDS <= len(waveform) / SAMPLE_RATE <= MAX_SECONDS:
        yield Recording(identifier, waveform, language, english, source)


def lines_of(recording: Recording, audio: Path, seconds: float) -> list[Line]:
    """The lines of one clip: name the language and, where the English text is known and short, translate."""
    identifier, _, language, english, source = recording
    # Ktuberling's speakers aren't those of the training set; three languages have real voices in the digits alone.
    held_out_speaker = source == "ktuberling-data" or (source == "tuxpaint-digits" and language in ("ja", "ko", "zh"))
    split = ("dev" if hash_fraction(identifier) < 0.5 else "test") if held_out_speaker else "train"
    text = plain_text(english)
    fraction = hash_fraction(text)
    text_split = "test" if fraction < 0.1 else "dev" if fraction < 0.2 else "train"
    # Both lines give the alignment the same text, which contains nothing that is held out for either task.
    name = "" if held_out_speaker or language == "en" else NAMES[language]
    meaning = text if text_split == "train" else ""
    fields = {
        "heard": " ".join(filter(None, (name, meaning))),
        "source": source, "language": language, "speaker": f"{source}-{language}",
    }  # fmt: skip
    lines = [clip_line(audio, WHICH_LANGUAGE, NAMES[language], seconds, split, **fields)]
    if text and 1 <= len(text.split()) <= 6:
        audio_language = language if language in LANGUAGES and not held_out_speaker else "unknown"
        prompt = ENGLISH if language == "en" else TaskPrompt("translate", audio_language, instruction="itn")
        lines.append(clip_line(audio, prompt, text, seconds, text_split, **fields))
    is_held_out = any(line["split"] != "train" for line in lines)
    return [line for line in lines if line["split"] != "train" or not is_held_out]


PARTS = {"ktuberling": ktuberling, "telephone": telephone, "tuxpaint": tuxpaint, "synthetic": synthetic}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the step."""
    add_work_argument(parser)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="sources (default: all)")


def run(args: argparse.Namespace) -> None:
    """Run the step."""
    for name in args.parts:
        lines: list[Line] = []
        for recording in PARTS[name](args.work):
            audio = Path("clips", "languages", f"{recording.identifier}.flac")
            seconds = write_clip(args.work / audio, recording.waveform)
            lines += lines_of(recording, audio, seconds)
        random.Random(0).shuffle(lines)
        write_manifest(args.work / f"manifests/languages-{name}.jsonl", lines)
