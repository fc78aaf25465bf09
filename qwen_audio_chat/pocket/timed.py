"""Synthesize English sentences for evaluation, with the true times of their words.

    python -m qwen_audio_chat.pocket timed

Their voice is used for nothing else in evaluation or training. Festival knows when it says each word, because it places
every phone itself.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..audio.decoding import SAMPLE_RATE
from .sentences import sentences
from .shards import ENGLISH, Line, clip_line, write_clip, write_manifest
from .speech import SLICES
from .spoken_form import plain_text
from .steps import add_work_argument, run_program
from .synthesizers import Festival
from .waveforms import read_waveform

CLIPS = 60
MAX_SECONDS = 12.0
TIMED = replace(ENGLISH, timestamps=True, instruction=None)
_SCRIPT = """
(voice_{voice})
(set! utt (utt.synth (Utterance Text "{text}")))
(utt.save.wave utt "{path}")
(mapcar (lambda (word)
  (format t "%s %f %f\\n" (item.name word) (item.feat word "word_start") (item.feat word "word_end")))
  (utt.relation.items utt 'Word))
"""


def say_timed(text: str, voice: str) -> tuple[np.ndarray, list[tuple[float, float, str]]]:
    """Speak plain text with one of Festival's voices: 16 kHz float32 [samples] and (start, end, word) in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        script, path = Path(folder, "say.scm"), Path(folder, "out.wav")
        script.write_text(_SCRIPT.format(voice=voice, text=text, path=path), encoding="utf-8")
        result = run_program(["festival", "-b", script], check=True, capture_output=True, text=True, timeout=60)
        rows = [line.rsplit(" ", 2) for line in result.stdout.splitlines()]
        return read_waveform(path), [(round(float(start), 3), round(float(end), 3), word) for word, start, end in rows]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the step."""
    add_work_argument(parser)


def run(args: argparse.Namespace) -> None:
    """Run the step."""
    [voice] = Festival.held_out
    lines: list[Line] = []
    for sentence in sentences(args.work)[SLICES - 1 :: SLICES]:  # the slice that no synthesizer reads
        text = plain_text(sentence.transcript)
        if len(lines) == CLIPS:
            break
        if not 3 <= len(text.split()) <= 25:
            continue
        waveform, words = say_timed(text, voice)
        seconds = len(waveform) / SAMPLE_RATE
        if [word for *_, word in words] != text.split() or seconds > MAX_SECONDS:  # it read an abbreviation, say
            continue
        audio = Path("clips/timed", f"timed-{len(lines):03d}.flac")
        write_clip(args.work / audio, waveform)
        lines.append(clip_line(audio, TIMED, text, seconds, "test", words=words, speaker=f"festival-{voice}"))
    write_manifest(args.work / "manifests/timed.jsonl", lines)
