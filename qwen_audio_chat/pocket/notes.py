"""Make single notes of a General MIDI sound font, with exact pitch, velocity and instrument family.

    python -m qwen_audio_chat.pocket notes

Needs Debian's fluidsynth and fluid-soundfont-gm (MIT). In each family of instruments one program is for development and
one for the test, so that held-out notes come from instruments that no model was trained on.
"""

import argparse
import io
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

import mido
import numpy as np

from ..audio.decoding import SAMPLE_RATE
from ..prompts.tags import TaskPrompt
from .shards import Line, clip_line, write_clip, write_manifest
from .steps import add_work_argument, run_program
from .waveforms import read_waveform

SOUND_FONT = Path("/usr/share/sounds/sf2/FluidR3_GM.sf2")
# Families of General MIDI that sound alike, by program numbers (0-127). Effects are left out, and so are programs of
# this font that were measured not to sound at the requested pitch (drawbar organs, tubular bells, the lead in fifths).
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
NOTES_PER_RENDERING = 40
TICKS_PER_SECOND = 480  # a quarter note lasts one second

Note = tuple[int, int, int, float]  # program, pitch, velocity, length in seconds


def midi_file(notes: Sequence[Note], slot_s: float) -> bytes:
    """A MIDI file of format 0 that plays one note every `slot_s` seconds."""
    track = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=1_000_000)])  # microseconds in a quarter note
    wait = 0
    for program, pitch, velocity, length in notes:
        duration = int(length * TICKS_PER_SECOND)
        track.append(mido.Message("program_change", program=program, time=wait))
        track.append(mido.Message("note_on", note=pitch, velocity=velocity))
        track.append(mido.Message("note_off", note=pitch, velocity=0, time=duration))
        wait = int(slot_s * TICKS_PER_SECOND) - duration
    track.append(mido.MetaMessage("end_of_track", time=wait))
    data = io.BytesIO()
    mido.MidiFile(type=0, ticks_per_beat=TICKS_PER_SECOND, tracks=[track]).save(file=data)
    return data.getvalue()


def render(notes: Sequence[Note], slot_s: float = 4.0) -> list[np.ndarray]:
    """Play notes through the sound font.

    Args:
        slot_s: seconds of each clip.

    Returns:
        Float32 arrays [samples] at 16 kHz, one per note, at the font's own level.
    """
    with tempfile.TemporaryDirectory() as folder:
        score, audio = Path(folder, "notes.mid"), Path(folder, "notes.wav")
        score.write_bytes(midi_file(notes, slot_s))
        options = "-n -i -q -R 0 -C 0 -g 0.6 -r 32000".split()  # no MIDI input, shell, reverb or chorus
        run_program(["fluidsynth", *options, "-F", audio, SOUND_FONT, score], check=True, capture_output=True)
        samples = read_waveform(audio)
    step = int(slot_s * SAMPLE_RATE)
    return [samples[i * step : (i + 1) * step] for i in range(len(notes))]


def note_text(pitch: int, velocity: int, family: str) -> str:
    """The answer in the official format of note analysis: pitch, velocity, instrument."""
    return f"<|pitch|><|midi_pitch_{pitch}|><|velocity|><|midi_velocity_{velocity}|><|instrument|>{family}"


def split_of(family: str, program: int) -> str:
    """The split of a program: the third of its family is for development, the fifth for the test."""
    return {2: "dev", 4: "test"}.get(list(FAMILIES[family]).index(program), "train")


HELD_OUT_PROGRAMS = {
    program for family, programs in FAMILIES.items() for program in programs if split_of(family, program) != "train"
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the step."""
    add_work_argument(parser)
    parser.add_argument("--count", type=int, default=3000, help="notes to make (default: %(default)s)")


def run(args: argparse.Namespace) -> None:
    """Run the step."""
    rng = random.Random(1)
    lines: list[Line] = []
    for start in range(0, args.count, NOTES_PER_RENDERING):
        families: list[str] = []
        notes: list[Note] = []
        for _ in range(min(NOTES_PER_RENDERING, args.count - start)):
            families.append(rng.choice(list(FAMILIES)))
            program, pitch = rng.choice(list(FAMILIES[families[-1]])), rng.choice(PITCHES)
            notes.append((program, pitch, rng.randrange(25, 128), rng.uniform(0.5, 2.5)))
        for number, (waveform, family, (program, pitch, velocity, length)) in enumerate(
            zip(render(notes), families, notes, strict=True), start
        ):
            waveform = waveform[: int((length + 0.6) * SAMPLE_RATE)]
            if np.abs(waveform).max(initial=0) < 1e-3:  # outside the instrument's range
                continue
            audio = Path("clips", "notes", f"note-{number:05d}.flac")
            seconds = write_clip(args.work / audio, waveform)
            label = {"pitch": pitch, "velocity": velocity, "instrument": family}
            origin = {"source": "fluid-soundfont-gm", "speaker": f"program-{program}"}
            text, split = note_text(pitch, velocity, family), split_of(family, program)
            lines.append(clip_line(audio, NOTE, text, seconds, split, **label, **origin))
    write_manifest(args.work / "manifests/notes.jsonl", lines)
