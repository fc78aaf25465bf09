"""Scores of musical notes, as NSynth describes them."""

from collections.abc import Sequence

from ..prompts.tags import Note
from .metrics import Metric, accuracy, mean_average_precision

QUALITIES = frozenset(
    "bright dark distortion fast_decay long_release multiphonic nonlinear_env percussive reverb tempo-synced".split()
)
"""The ten note qualities that NSynth labels."""

SEMITONES_PER_OCTAVE = 12


def note_metrics(references: Sequence[Note], predictions: Sequence[Note]) -> dict[str, Metric]:
    """Score notes: accuracies of what each reference states, and the macro average precision of the qualities.

    The chroma accuracy ignores octaves and counts in MIDI numbers; the released script counts in places of its sorted
    label list, which is the same only where no pitch is missing from the data. An unreadable pitch is wrong here.
    """
    pairs = list(zip(references, predictions, strict=True))
    pitches = [(truth.pitch, guess.pitch) for truth, guess in pairs if truth.pitch is not None]
    steps = [None if guess is None else abs(guess - truth) for truth, guess in pitches]
    velocities = [(truth.velocity, guess.velocity) for truth, guess in pairs if truth.velocity is not None]
    instruments = [(truth.instrument, guess.instrument) for truth, guess in pairs if truth.instrument]
    return {
        "instrument_accuracy": accuracy([truth == guess for truth, guess in instruments]),
        "qualities_map": mean_average_precision(
            [QUALITIES & set(truth.qualities) for truth, _ in pairs],
            [QUALITIES & set(guess.qualities) for _, guess in pairs],
        ),
        "velocity_accuracy": accuracy([truth == guess for truth, guess in velocities]),
        "pitch_accuracy": accuracy([step == 0 for step in steps]),
        "pitch_within_semitone": accuracy([step is not None and step <= 1 for step in steps]),
        "chroma_accuracy": accuracy([step is not None and step % SEMITONES_PER_OCTAVE == 0 for step in steps]),
    }
