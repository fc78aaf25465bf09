"""English sentences of a voice that nothing is trained on, with the true times of their words: they only measure.

    python -m qwen_audio_chat.pocket.timed --work build/pocket

Festival knows when it says each word, since it places every phone itself.
"""

import argparse
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..audio.decoding import SAMPLE_RATE
from .conversion import read_sound
from .recordings import plain
from .sentences import sentences
from .shards import ENGLISH, Line, clip_line, write_clip, write_manifest
from .sources import DEFAULT_WORK
from .speech import SLICES
from .voices import Festival

COUNT = 60
LONGEST_S = 12.0
TIMED = replace(ENGLISH, timestamps=True, instruction=None)
_SCRIPT = """
(voice_{voice})
(set! utt (utt.synth (Utterance Text "{text}")))
(utt.save.wave utt "{path}")
(mapcar (lambda (word)
  (format t "%s %f %f\\n" (item.name word) (item.feat word "word_start") (item.feat word "word_end")))
  (utt.relation.items utt 'Word))
"""


def say_timed(text: str, voice: str) -> tuple[np.ndarray, list[list]]:
    """Speak plain words with one of Festival's voices: 16 kHz float32 [samples] and `[start, end, word]` in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        script, path = Path(folder, "say.scm"), Path(folder, "out.wav")
        script.write_text(_SCRIPT.format(voice=voice, text=text, path=path), encoding="utf-8")
        spoken = subprocess.run(["festival", "-b", script], check=True, capture_output=True, text=True, timeout=60)
        words = [line.rsplit(" ", 2) for line in spoken.stdout.splitlines()]
        return read_sound(path), [[round(float(start), 3), round(float(end), 3), word] for word, start, end in words]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=DEFAULT_WORK, help="work folder (default: %(default)s)")
    work = parser.parse_args().work
    [voice] = Festival.held_out
    lines: list[Line] = []
    for sentence in sentences(work)[SLICES - 1 :: SLICES]:  # the slice that no synthesizer reads
        text = plain(sentence.text)
        if len(lines) == COUNT:
            break
        if not 3 <= len(text.split()) <= 25:
            continue
        waveform, words = say_timed(text, voice)
        seconds = len(waveform) / SAMPLE_RATE
        if [word for *_, word in words] != text.split() or seconds > LONGEST_S:  # it read an abbreviation, say
            continue
        audio = Path("clips/timed", f"timed-{len(lines):03d}.flac")
        write_clip(work / audio, waveform)
        lines.append(clip_line(audio, TIMED, text, seconds, "test", words=words, speaker=f"festival-{voice}"))
    write_manifest(work / "manifests/timed.jsonl", lines)


if __name__ == "__main__":
    main()
