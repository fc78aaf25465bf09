"""Words spoken by people in other languages, for speech translation into English and for naming the language.

    python -m qwen_audio_chat.pocket.languages --work build/pocket

Two children's programs hold recorded object names with the English text beside them; telephone prompts add sentences;
espeak-ng adds languages and voices where recordings are few. Translation is split by content, so that no held-out
phrase was heard in any language; language is split by speaker where a language has several sources. A clip that is held
out for the one is no training for the other.
"""

import argparse
import random
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from ..audio.decoding import SAMPLE_RATE
from ..prompts.tags import LANGUAGES, TaskPrompt
from .conversion import read_sound, trim
from .recordings import bucket, plain
from .sentences import Sentence
from .shards import ENGLISH, Line, clip_line, write_clip, write_manifest
from .sources import DEFAULT_WORK, fetch
from .speech import utter
from .voices import Espeak

NAMES = {
    "en": "English", "fr": "French", "de": "German", "es": "Spanish", "it": "Italian", "ru": "Russian",
    "ro": "Romanian", "ca": "Catalan", "bg": "Bulgarian", "el": "Greek", "uk": "Ukrainian", "da": "Danish",
    "lt": "Lithuanian", "nn": "Norwegian", "sl": "Slovenian", "nl": "Dutch", "be": "Belarusian", "pt": "Portuguese",
    "fi": "Finnish", "sv": "Swedish", "ja": "Japanese", "ko": "Korean", "zh": "Chinese",
}  # fmt: skip
# Languages with few recordings, and three with many, so that the voice doesn't tell the language: texts and voices
SYNTHETIC = {"de": ("de", "de"), "it": ("it", "it"), "ja": ("ja", "ja"), "ko": ("ko", "ko"), "zh": ("zh_CN", "cmn"),
             "pt": ("pt", "pt"), "es": ("es", "es"), "fr": ("fr", "fr-fr"), "ru": ("ru", "ru")}  # fmt: skip
SYNTHETIC_SHARE = 0.35  # of the texts
WHICH_LANGUAGE = TaskPrompt("question", "unknown", question="Which language is spoken?")
SHORTEST_S, LONGEST_S = 0.35, 20.0

Word = tuple[str, np.ndarray, str, str, str]  # identifier, waveform, language, English text or "", source


def tuxpaint(work: Path) -> Iterator[Word]:
    """Object names: `<object>_desc_<language>.ogg` beside `<object>.txt`, whose first line is English."""
    stamps = fetch("tuxpaint-stamps-default", work) / "usr/share/tuxpaint/stamps"
    for path in sorted(stamps.rglob("*_desc_*.ogg")):
        name, _, language = path.stem.partition("_desc_")
        text = path.with_name(f"{name}.txt")
        if language not in NAMES or not text.exists():
            continue
        english = text.read_text(encoding="utf-8", errors="replace").splitlines()[0]
        identifier = "-".join((*path.relative_to(stamps).parent.parts, name))
        yield from _loaded(f"tuxpaint-{language}-{identifier}", path, language, english, "tuxpaint-stamps-default")
    for path in sorted((stamps / "symbols/math").glob("[0-9]_*.ogg")):  # digits, in still more languages
        digit, _, language = path.stem.partition("_")
        language = {"zh_tw": "zh", "nb": "nn"}.get(language, language)
        if language in NAMES:
            yield from _loaded(f"tuxpaint-{path.stem}", path, language, digit, "tuxpaint-digits")


def ktuberling(work: Path) -> Iterator[Word]:
    """Object names of a picture game; the names of the sounds are English: `egypt_palmtree` is a palm tree."""
    folder = fetch("ktuberling-data", work) / "usr/share/ktuberling/sounds"
    glued = {
        "palmtree": "palm tree",
        "fallingstar": "falling star",
        "moonwalker": "moon walker",
        "broccolli": "broccoli",
    }
    for theme in sorted(folder.glob("*.soundtheme")):
        if theme.stem not in NAMES:
            continue
        for sound in ElementTree.parse(theme).getroot().iter("sound"):
            english = sound.get("name").rsplit("_", 1)[-1]
            english = re.sub(r"\d+$", "", english)
            path = folder / sound.get("file")
            if path.exists():
                yield from _loaded(
                    f"ktuberling-{theme.stem}-{sound.get('name')}",
                    path,
                    theme.stem,
                    glued.get(english, english),
                    "ktuberling-data",
                )


def telephone(work: Path) -> Iterator[Word]:
    """Prompts in Spanish, French, Italian, Russian and English; for the language only."""
    for language in ("en", "es", "fr", "it", "ru"):
        folder = next((fetch(f"asterisk-core-sounds-{language}-wav", work) / "usr/share/asterisk/sounds").iterdir())
        for path in sorted(folder.glob("*.wav")):
            yield from _loaded(f"asterisk-{language}-{path.stem}", path, language, "", f"asterisk-{language}")


def synthetic(work: Path) -> Iterator[Word]:
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
                if SHORTEST_S <= len(waveform) / SAMPLE_RATE <= LONGEST_S:
                    yield identifier, waveform, language, english, "espeak-ng"


def _loaded(identifier: str, path: Path, language: str, english: str, source: str) -> Iterator[Word]:
    try:
        waveform = trim(read_sound(path), 0.15, 0.2)
    except soundfile.LibsndfileError:
        return
    if SHORTEST_S <= len(waveform) / SAMPLE_RATE <= LONGEST_S:
        yield identifier, waveform, language, english, source


def lines_of(word: Word, audio: Path, seconds: float) -> list[Line]:
    """The tasks one clip serves: name the language, and, where the English is known and short, translate."""
    identifier, _, language, english, source = word
    origin = {"source": source, "language": language, "speaker": f"{source}-{language}"}
    # other people than those of the training set; three languages have real voices in the digits alone
    held_out_speaker = source == "ktuberling-data" or (source == "tuxpaint-digits" and language in ("ja", "ko", "zh"))
    split = ("dev" if bucket(identifier) < 0.5 else "test") if held_out_speaker else "train"
    text = plain(english)
    place = bucket(text)
    text_split = "test" if place < 0.1 else "dev" if place < 0.2 else "train"
    # What the alignment learns of a clip is the same for both tasks, and tells neither what is held out for the other.
    name = "" if held_out_speaker or language == "en" else NAMES[language]
    meaning = text if text_split == "train" else ""
    heard = " ".join(filter(None, (name, meaning)))
    lines = [clip_line(audio, WHICH_LANGUAGE, NAMES[language], seconds, split, heard=heard, **origin)]
    if text and 1 <= len(text.split()) <= 6:
        spoken = language if language in LANGUAGES and not held_out_speaker else "unknown"
        prompt = ENGLISH if language == "en" else TaskPrompt("translate", spoken, instruction="itn")
        lines.append(clip_line(audio, prompt, text, seconds, text_split, heard=heard, **origin))
    is_held_out = any(line["split"] != "train" for line in lines)
    return [line for line in lines if line["split"] != "train" or not is_held_out]


PARTS = {"ktuberling": ktuberling, "telephone": telephone, "tuxpaint": tuxpaint, "synthetic": synthetic}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=DEFAULT_WORK, help="work folder (default: %(default)s)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="sources (default: all)")
    arguments = parser.parse_args()
    work = arguments.work
    for name in arguments.parts:
        lines: list[Line] = []
        for word in PARTS[name](work):
            audio = Path("clips", "languages", f"{word[0]}.flac")
            seconds = write_clip(work / audio, word[1])
            lines += lines_of(word, audio, seconds)
        random.Random(0).shuffle(lines)
        write_manifest(work / f"manifests/languages-{name}.jsonl", lines)


if __name__ == "__main__":
    main()
