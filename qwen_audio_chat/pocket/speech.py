"""Synthesize English speech with transcripts, shard after shard.

    python -m qwen_audio_chat.pocket.speech --work build/pocket --synthesizer flite --hours 14

Every utterance is drawn from a generator seeded with its own name, so the corpus is the same however often the work
was interrupted (but for the noise inside Piper). Each synthesizer has its own slice of the sentences; a finished shard
is a manifest such as `manifests/speech-flite-0001.jsonl`.
"""

import argparse
import logging
import random
from pathlib import Path

import numpy as np

from ..audio.decoding import SAMPLE_RATE
from .conversion import convert, resample_by, trim
from .sentences import Sentence, sentences
from .shards import ENGLISH, Line, clip_line, write_clip, write_shard
from .sources import DEFAULT_WORK
from .voices import Synthesizer, synthesizer

# espeak-ng is left out: Whisper base misreads 46 % of its words, too many to learn real speech from.
SYNTHESIZERS = ("flite", "kokoro", "piper", "festival")
SLICES = 5  # of the sentences; one stays free for a further synthesizer
SHARD_CLIPS = 250
DEV_CLIPS = 40
SHORTEST_S, LONGEST_S = 0.6, 20.0
CONVERTED = 0.25  # part of the clips whose pitch and formants are moved apart by WORLD

log = logging.getLogger(__name__)


def utter(sentence: Sentence, voice: str, speaker: Synthesizer, rng: random.Random, *, perturb: bool) -> np.ndarray:
    """Speak one sentence with a random tempo and, unless told not to, as a random relative of the voice.

    Args:
        sentence: What to say.
        voice: One of the synthesizer's voices.
        speaker: The synthesizer.
        rng: Draws everything random.
        perturb: Whether to change pitch and formants.

    Returns:
        float32 [samples] at 16 kHz, trimmed, peak at most 0.95.
    """
    tempo = rng.uniform(0.82, 1.22)
    chance = rng.random()
    shift = 1.0
    if perturb and chance >= CONVERTED:
        shift = np.exp(rng.uniform(np.log(0.85), np.log(1.18)))
    waveform, rate = speaker.say(sentence.speakable, voice, tempo / shift, rng)
    if waveform.ndim > 1:
        waveform = waveform.mean(axis=1)
    waveform = resample_by(waveform, rate, shift)
    if perturb and chance < CONVERTED and len(waveform):
        formants = rng.uniform(0.85, 1.2)
        waveform = convert(waveform, formants * rng.uniform(0.8, 1.3), formants, rng.uniform(0.5, 1.6))
    waveform = trim(waveform, rng.uniform(0.05, 0.4), rng.uniform(0.1, 0.5))
    peak = np.abs(waveform).max(initial=1e-6)
    return waveform * (rng.uniform(0.2, 0.95) / peak)


def synthesize(name: str, hours: float, work: Path, threads: int = 1) -> None:
    """Write shards of one synthesizer until it has spoken for so long.

    Args:
        name: One of `SYNTHESIZERS`.
        hours: Speech of the training split to reach.
        work: Work folder.
        threads: For the neural voices.
    """
    speaker = synthesizer(name, work, threads)
    own = sentences(work)[SYNTHESIZERS.index(name) :: SLICES]
    held_out = DEV_CLIPS * len(speaker.held_out)

    def make(identifier: str) -> Line | None:
        number = int(identifier.rsplit("-", 1)[1])
        rng = random.Random(identifier)
        dev = number < held_out
        voice = speaker.held_out[number % len(speaker.held_out)] if dev else rng.choice(speaker.voices)
        waveform = utter(own[number], voice, speaker, rng, perturb=not dev)
        seconds = len(waveform) / SAMPLE_RATE
        if not SHORTEST_S <= seconds <= LONGEST_S or not np.isfinite(waveform).all():
            return None
        audio = Path("clips", name, f"{number // SHARD_CLIPS:04d}", f"{identifier}.flac")
        write_clip(work / audio, waveform)
        source = {"source": f"{name}:{own[number].source}", "speaker": f"{name}-{voice}"}
        split, written = "dev" if dev else "train", own[number].written
        return clip_line(audio, ENGLISH, own[number].text, seconds, split, written=written, **source)

    spoken = 0.0
    if held_out:
        write_shard(work / f"manifests/speech-{name}-dev.jsonl", [f"{name}-{n:06d}" for n in range(held_out)], make)
    for shard, start in enumerate(range(held_out, len(own), SHARD_CLIPS), 1):
        items = [f"{name}-{n:06d}" for n in range(start, min(start + SHARD_CLIPS, len(own)))]
        lines = write_shard(work / f"manifests/speech-{name}-{shard:04d}.jsonl", items, make)
        spoken += sum(line["seconds"] for line in lines) / 3600
        log.info("%s: %d shards, %.2f h", name, shard, spoken)
        if spoken >= hours:
            return


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=DEFAULT_WORK, help="work folder (default: %(default)s)")
    parser.add_argument("--synthesizer", choices=SYNTHESIZERS, required=True)
    parser.add_argument("--hours", type=float, default=8.0, help="speech to reach (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of the neural voices (default: %(default)s)")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    synthesize(arguments.synthesizer, arguments.hours, arguments.work, arguments.threads)


if __name__ == "__main__":
    main()
