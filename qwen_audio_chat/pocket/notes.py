"""Single notes of a General MIDI sound font, with exact pitch, velocity and instrument family.

    python -m qwen_audio_chat.pocket.notes --work build/pocket

Needs the programs and files of Debian's fluidsynth and fluid-soundfont-gm (MIT). Of the eight programs of each family
one is for development and one for the test, so that held-out notes come from instruments never heard.
"""

import argparse
import random
import struct
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from ..audio.decoding import SAMPLE_RATE
from ..prompts.tags import TaskPrompt
from .conversion import read_sound
from .shards import Line, clip_line, write_clip, write_manifest
from .sources import DEFAULT_WORK

SOUND_FONT = Path("/usr/share/sounds/sf2/FluidR3_GM.sf2")
# Families of General MIDI that sound alike, by program numbers (0-127). Effects are left out, and programs of this font
# that don't sound at the pitch they are asked for (drawbar organs, tubular bells, the lead in fifths), as measured.
FAMILIES = {
    "piano": range(0, 6),
    "mallet": range(8, 14),
    "organ": (20, 21, 22, 23, 19),
    "guitar": range(24, 31),
    "bass": range(32, 40),
    "strings": (40, 41, 42, 43, 44, 48, 49, 50, 51),
    "voice": (52, 53, 54, 85, 91),
    "brass": range(56, 64),
    "reed": range(64, 72),
    "flute": range(72, 80),
    "synth lead": (80, 81, 84, 87, 90),
}
PITCHES = range(36, 97)
NOTE = TaskPrompt("keyword", "unknown", instruction="note_analysis")
GROUP = 40  # notes a run of the synthesizer
TICKS = 480  # a quarter note; with one quarter a second, time is ticks / 480


def _variable(number: int) -> bytes:
    """MIDI's variable-length quantity."""
    data = bytes([number & 0x7F])
    while number := number >> 7:
        data = bytes([0x80 | (number & 0x7F)]) + data
    return data


def midi_file(notes: list[tuple[int, int, int, float]], slot_s: float) -> bytes:
    """A MIDI file with one note a slot.

    Args:
        notes: (program, pitch, velocity, length in seconds), played one after another.
        slot_s: Seconds from one note's start to the next.

    Returns:
        Format 0 file; one quarter note lasts one second.
    """
    track = b"\x00\xff\x51\x03" + (1_000_000).to_bytes(3, "big")
    wait = 0
    for program, pitch, velocity, length in notes:
        held = int(length * TICKS)
        track += _variable(wait) + bytes([0xC0, program])
        track += b"\x00" + bytes([0x90, pitch, velocity]) + _variable(held) + bytes([0x80, pitch, 0])
        wait = int(slot_s * TICKS) - held
    track += _variable(wait) + b"\xff\x2f\x00"
    return b"MThd" + struct.pack(">IHHH", 6, 0, 1, TICKS) + b"MTrk" + struct.pack(">I", len(track)) + track


def render(notes: list[tuple[int, int, int, float]], slot_s: float = 4.0) -> list[np.ndarray]:
    """Play notes through the sound font.

    Args:
        notes: (program, pitch, velocity, length in seconds).
        slot_s: Seconds of every clip.

    Returns:
        One float32 array of 16 kHz samples a note, at the font's own level.
    """
    with tempfile.TemporaryDirectory() as folder:
        score, audio = Path(folder, "notes.mid"), Path(folder, "notes.wav")
        score.write_bytes(midi_file(notes, slot_s))
        subprocess.run(
            [
                "fluidsynth",
                "-n",
                "-i",
                "-q",
                "-R",
                "0",
                "-C",
                "0",
                "-g",
                "0.6",
                "-r",
                "32000",
                "-F",
                audio,
                SOUND_FONT,
                score,
            ],
            check=True,
            capture_output=True,
        )
        samples = read_sound(audio)
    step = int(slot_s * SAMPLE_RATE)
    return [samples[i * step : (i + 1) * step] for i in range(len(notes))]


def note_text(pitch: int, velocity: int, family: str) -> str:
    """The answer of the official note analysis: pitch, velocity, instrument."""
    return f"<|pitch|><|midi_pitch_{pitch}|><|velocity|><|midi_velocity_{velocity}|><|instrument|>{family}"


def split_of(family: str, program: int) -> str:
    """Which split a program belongs to: the third of its family is for development, the fifth for the test."""
    return {2: "dev", 4: "test"}.get(list(FAMILIES[family]).index(program), "train")


HELD_OUT_PROGRAMS = {x for family, programs in FAMILIES.items() for x in programs if split_of(family, x) != "train"}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=DEFAULT_WORK, help="work folder (default: %(default)s)")
    parser.add_argument("--count", type=int, default=3000, help="notes to make (default: %(default)s)")
    arguments = parser.parse_args()
    work, rng = arguments.work, random.Random(1)
    lines: list[Line] = []
    for start in range(0, arguments.count, GROUP):
        chosen = []
        for _ in range(min(GROUP, arguments.count - start)):
            family = rng.choice(list(FAMILIES))
            chosen.append(
                (
                    family,
                    rng.choice(list(FAMILIES[family])),
                    rng.choice(PITCHES),
                    rng.randrange(25, 128),
                    rng.uniform(0.5, 2.5),
                )
            )
        for number, (waveform, (family, program, pitch, velocity, length)) in enumerate(
            zip(render([note[1:] for note in chosen]), chosen, strict=True), start
        ):
            waveform = waveform[: int((length + 0.6) * SAMPLE_RATE)]
            if np.abs(waveform).max(initial=0) < 1e-3:  # out of the instrument's range
                continue
            audio = Path("clips", "notes", f"note-{number:05d}.flac")
            seconds = write_clip(work / audio, waveform)
            note = {"pitch": pitch, "velocity": velocity, "instrument": family}
            source = {"source": "fluid-soundfont-gm", "speaker": f"program-{program}"}
            text, split = note_text(pitch, velocity, family), split_of(family, program)
            lines.append(clip_line(audio, NOTE, text, seconds, split, **note, **source))
    write_manifest(work / "manifests/notes.jsonl", lines)


if __name__ == "__main__":
    main()
