"""Long recordings: utterances of one synthesizer after another, with pauses, up to what one clip may hold.

    python -m qwen_audio_chat.training.pocket.joined --work build/pocket --count 1000

Single sentences last four seconds on average; a model that never heard more runs away from half a minute of speech.
Voices change on the way, since Kokoro's are mixed anew for each sentence.
"""

import argparse
import random
from collections import defaultdict
from pathlib import Path

import numpy as np
import soundfile

from ...audio import SAMPLE_RATE
from .manifests import ENGLISH, Line, clip_line, read_manifest, write_clip, write_shard
from .sources import DEFAULT_WORK

SHORTEST_S, LONGEST_S = 7.0, 29.0
PAUSE_S = (0.0, 0.5)  # beside the silence around each utterance


def join(utterances: list[Line], manifests: Path, rng: random.Random) -> np.ndarray:
    """The recordings of these lines in their order, with random pauses: float32 [samples] at 16 kHz."""
    pieces = []
    for line in utterances:
        waveform, rate = soundfile.read(manifests / str(line["audio"]), dtype="float32")
        if rate != SAMPLE_RATE:
            raise ValueError(f"{line['audio']} has {rate} samples a second instead of {SAMPLE_RATE}.")
        pieces += [waveform, np.zeros(int(rng.uniform(*PAUSE_S) * SAMPLE_RATE), np.float32)]
    return np.concatenate(pieces[:-1])


def draw(utterances: list[Line], rng: random.Random) -> list[Line]:
    """Utterances, each at most once, up to a random length between `SHORTEST_S` and `LONGEST_S`."""
    wanted, seconds, drawn = rng.uniform(SHORTEST_S, LONGEST_S), 0.0, []
    for line in rng.sample(utterances, len(utterances)):
        length = float(line["seconds"]) + PAUSE_S[1]
        if seconds + length <= wanted:
            drawn.append(line)
            seconds += length
    return drawn


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=DEFAULT_WORK, help="work folder (default: %(default)s)")
    parser.add_argument("--count", type=int, default=1000, help="recordings to make (default: %(default)s)")
    arguments = parser.parse_args()
    manifests = arguments.work / "manifests"
    spoken: dict[str, list[Line]] = defaultdict(list)
    for path in sorted(manifests.glob("speech-*-[0-9][0-9][0-9][0-9].jsonl")):
        spoken[path.stem.split("-")[1]] += read_manifest(path)

    def make(identifier: str) -> Line | None:
        rng = random.Random(identifier)
        synthesizer = rng.choice(sorted(spoken))
        utterances = draw(spoken[synthesizer], rng)
        if len(utterances) < 2:
            return None
        waveform = join(utterances, manifests, rng)
        audio = Path("clips/joined", f"{identifier}.flac")
        seconds = write_clip(arguments.work / audio, waveform)
        text = " ".join(str(line["text"]) for line in utterances)
        return clip_line(audio, ENGLISH, text, seconds, "train", speaker=f"{synthesizer}-several")

    write_shard(manifests / "joined.jsonl", [f"joined-{n:05d}" for n in range(arguments.count)], make)


if __name__ == "__main__":
    main()
