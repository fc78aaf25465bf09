"""Synthesize English speech with transcripts, shard by shard.

    python -m qwen_audio_chat.pocket speech --synthesizer flite --hours 14

Every utterance is drawn from a random generator seeded with its own name, so the corpus doesn't depend on interruptions
(except for the noise inside Piper). Each synthesizer reads its own slice of the sentences. A finished shard is a
manifest such as `manifests/speech-flite-0001.jsonl`.
"""

import argparse
import logging
import random
from pathlib import Path

import numpy as np

from ..audio.decoding import SAMPLE_RATE
from .sentences import Sentence, sentences
from .shards import ENGLISH, Line, clip_line, write_clip, write_shard
from .steps import add_work_argument
from .synthesizers import Speaker, synthesizer
from .waveforms import change_voice, resample_by, trim

# Without espeak-ng: Whisper base misreads 46 % of its words, too many to learn real speech from.
SYNTHESIZERS = ("flite", "kokoro", "piper", "festival")
SLICES = 5  # of the sentences; the last one is left for evaluation, see `timed`
SHARD_CLIPS = 250
DEV_CLIPS_PER_VOICE = 40
MIN_SECONDS, MAX_SECONDS = 0.6, 20.0
CHANGED_VOICE_SHARE = 0.25  # of the clips, whose pitch and formants are shifted independently

log = logging.getLogger(__name__)


def utter(sentence: Sentence, voice: str, speaker: Speaker, rng: random.Random, *, perturb: bool) -> np.ndarray:
    """Speak a sentence at a random tempo and, if wanted, with a random variation of the voice.

    Args:
        sentence: what to say.
        voice: one of the synthesizer's voices.
        speaker: who says it.
        rng: draws everything random.
        perturb: whether to change pitch and formants.

    Returns:
        float32 [samples] at 16 kHz, trimmed, with a peak of at most 0.95.
    """
    tempo = rng.uniform(0.82, 1.22)
    chance = rng.random()
    shift = 1.0
    if perturb and chance >= CHANGED_VOICE_SHARE:
        shift = np.exp(rng.uniform(np.log(0.85), np.log(1.18)))
    waveform, rate = speaker.say(sentence.spoken, voice, tempo / shift, rng)
    if waveform.ndim > 1:
        waveform = waveform.mean(axis=1)
    waveform = resample_by(waveform, rate, shift)
    if perturb and chance < CHANGED_VOICE_SHARE and len(waveform):
        formants = rng.uniform(0.85, 1.2)
        waveform = change_voice(waveform, formants * rng.uniform(0.8, 1.3), formants, rng.uniform(0.5, 1.6))
    waveform = trim(waveform, rng.uniform(0.05, 0.4), rng.uniform(0.1, 0.5))
    peak = np.abs(waveform).max(initial=1e-6)
    return waveform * (rng.uniform(0.2, 0.95) / peak)


def synthesize(name: str, hours: float, work: Path, threads: int = 1) -> None:
    """Write the shards of one synthesizer until they hold enough speech.

    Args:
        name: one of `SYNTHESIZERS`.
        hours: speech of the training split to reach.
        work: work folder.
        threads: of the neural voices.
    """
    chosen = synthesizer(name, work, threads)
    own = sentences(work)[SYNTHESIZERS.index(name) :: SLICES]
    dev_clips = DEV_CLIPS_PER_VOICE * len(chosen.held_out)

    def make(identifier: str) -> Line | None:
        number = int(identifier.rsplit("-", 1)[1])
        rng = random.Random(identifier)
        is_dev = number < dev_clips
        voice = chosen.held_out[number % len(chosen.held_out)] if is_dev else rng.choice(chosen.voices)
        waveform = utter(own[number], voice, chosen, rng, perturb=not is_dev)
        seconds = len(waveform) / SAMPLE_RATE
        if not MIN_SECONDS <= seconds <= MAX_SECONDS or not np.isfinite(waveform).all():
            return None
        audio = Path("clips", name, f"{number // SHARD_CLIPS:04d}", f"{identifier}.flac")
        write_clip(work / audio, waveform)
        origin = {"source": f"{name}:{own[number].source}", "speaker": f"{name}-{voice}"}
        split, written = "dev" if is_dev else "train", own[number].written
        return clip_line(audio, ENGLISH, own[number].transcript, seconds, split, written=written, **origin)

    hours_done = 0.0
    if dev_clips:
        write_shard(work / f"manifests/speech-{name}-dev.jsonl", [f"{name}-{n:06d}" for n in range(dev_clips)], make)
    for shard, start in enumerate(range(dev_clips, len(own), SHARD_CLIPS), 1):
        items = [f"{name}-{n:06d}" for n in range(start, min(start + SHARD_CLIPS, len(own)))]
        lines = write_shard(work / f"manifests/speech-{name}-{shard:04d}.jsonl", items, make)
        hours_done += sum(line["seconds"] for line in lines) / 3600
        log.info("%s: %d shards, %.2f h", name, shard, hours_done)
        if hours_done >= hours:
            return


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the step."""
    add_work_argument(parser)
    parser.add_argument("--synthesizer", choices=SYNTHESIZERS, required=True, help="who speaks")
    parser.add_argument("--hours", type=float, default=8.0, help="speech to reach (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of the neural voices (default: %(default)s)")


def run(args: argparse.Namespace) -> None:
    """Run the step."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    synthesize(args.synthesizer, args.hours, args.work, args.threads)
