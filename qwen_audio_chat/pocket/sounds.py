"""Collect named sounds from other programs: animals, instruments, vehicles, tools, household, nature, people.

    python -m qwen_audio_chat.pocket sounds

A package seldom has more than one recording of a thing, so the recordings of a label come from several packages. Those
of GCompris and OpenSFX are all held out for the test, provided that another package has the label for training; some
recordings of the other packages are held out, too. All cuts of a recording are in the same split, at random speeds.
Silence and noise have no label: they teach the model to decline.
"""

import argparse
import io
import random
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr

from ..audio.decoding import SAMPLE_RATE
from ..prompts.questions import UNKNOWN
from ..prompts.tags import TaskPrompt
from ..training.augment import coloured_noise
from .notes import HELD_OUT_PROGRAMS, render
from .shards import Line, clip_line, hash_fraction, write_clip, write_manifest
from .sources import fetch
from .steps import add_work_argument
from .waveforms import read_waveform, trim

# label → (group, pattern that matches "package/file name without ending")
LABELS: dict[str, tuple[str, str]] = {
    "dog": ("animal", r"/dog$"), "cat": ("animal", r"/(cat|blackcat)$"), "cow": ("animal", r"/(cow|cow_white|bull)$"),
    "horse": ("animal", r"/(horse|horse-(canter|elf-canter|hit-\d|die)|donkey|zebra)$"),
    "sheep": ("animal", r"/(sheep|sheep_lamb|ram|goat|mountaingoat)$"),
    "pig": ("animal", r"/(pig|pig_golden2?|tusker-.*)$"),
    "duck": ("animal", r"/(duck|drake|gander|rubberduck)$"), "owl": ("animal", r"/owl$"),
    "chicken": ("animal", r"/(hen|rooster|turkey|chickens)$"), "crow": ("animal", r"/(crow|misc_crow)$"),
    "bird": ("animal", r"/(blackbird|cuckoo|lark|seagull|nandou|quetzal|tucan|penguin|vulture|birds\d|gryphon-shriek-\d"
                       r"|heron_.*|morning|seagulls|tropical bird \d)$"),
    "wolf": ("animal", r"/wolf-.*$"), "big cat": ("animal", r"/(lion|tiger|tropical lion roar)$"),
    "bear": ("animal", r"/(bear|yeti-.*)$"),
    "bat": ("animal", r"/(bat_left|bat-.*)$"), "snake": ("animal", r"/(hiss.*|naga-.*)$"),
    "frog": ("animal", r"/frog$"),
    "insect": ("animal", r"/(bee|grasshopper|hornet|mosquito|xanthia)$"),
    "ape": ("animal", r"/(chimp|gorilla|tropical monkeys)$"),
    "whale": ("animal", r"/(whale|orca|dolphin|sea_lion)$"), "elephant": ("animal", r"/elephant$"),
    "drum": ("instrument", r"(/(drum_(tom|bass|snare|heavy|roll).*|drumkit|drum_kit|drum_tomtom_floor|bd_.*|snare_drum"
                           r"|bongo|timpani|wardrums|tabla_.*)"
                           r"|hydrogen.*(kick|snare|tom))"),
    "cymbal": ("instrument", r"(/(cymbal.*|drum_(cymbal|splash).*)"
                             r"|hydrogen.*(crash|ride|hihat|hi-hat|hh))"),
    "bell": ("instrument", r"/(perc_bell2?|bell|drum_cowbell|triangle|program-14)$"),
    "piano": ("instrument", r"/(piano|ambi_piano|program-[0-3])$"),
    "guitar": ("instrument", r"/(guitar|electric_guitar|banjo|guit_.*|program-(2[4-9]|105))$"),
    "violin": ("instrument", r"/(violin|program-40)$"), "cello": ("instrument", r"/(cello|program-42)$"),
    "harp": ("instrument", r"/(harp|program-46)$"), "organ": ("instrument", r"/(organ|program-(16|17|18|19|20))$"),
    "accordion": ("instrument", r"/(accordion|harmonica|program-(21|22|23))$"),
    "trumpet": ("instrument", r"/(trumpet|fanfare-short|program-(56|59))$"),
    "trombone": ("instrument", r"/(trombone|tuba|program-(57|58))$"), "horn": ("instrument", r"/(horn|program-60)$"),
    "saxophone": ("instrument", r"/(saxophone|program-(64|65|66|67))$"),
    "clarinet": ("instrument", r"/(clarinet|bassoon|program-(68|70|71))$"),
    "flute": ("instrument", r"/(flute_traversiere|program-(72|73|74))$"),
    "siren": ("vehicle", r"/firetruck$"), "ship": ("vehicle", r"/(ship|bathyscape|boat-horn|(ship|ferry) horn)$"),
    "rocket": ("vehicle", r"/(apollo_lander|Rocket\d|RocketTakeoff\d)$"),
    "traffic": ("vehicle", r"/Trafic(High|Low)\d$"),
    "train": ("vehicle", r"/(RailTrain\d|diesel|steam|(steam|diesel or electric) train station departure"
                         r"|steam engine going in tunnel)$"),
    "truck": ("vehicle", r"/(truck|bus|truck or old bus start.*|(old|modern) bus start)$"),
    "airplane": ("vehicle", r"/(comet-jet|planelow|ParklandPlane\d|propeller plane start|.* jet take off)$"),
    "helicopter": ("vehicle", r"/(program-125|helicopter)$"),
    "hammer": ("tool", r"/(hammer|mallet_metal|mace.*|club|Blacksmith\d|building bridge)$"),
    "saw": ("tool", r"/(saw|buzzsaw|sawmill|lumber mill chainsaw)$"), "jackhammer": ("tool", r"/jackhammer$"),
    "scissors": ("tool", r"/scissors_.*$"), "sword": ("tool", r"/(sword-1|axe|spear|hatchet|dagger-swish|knife)$"),
    "bow and arrow": ("tool", r"/(bow|bow-miss|crossbow|crossbow-miss|bow-puny)$"),
    "gunshot": ("tool", r"/(gunshot|thunderstick|program-127)$"),
    "vacuum cleaner": ("household", r"/vacuum_cleaner$"), "washing machine": ("household", r"/Washing-machine$"),
    "toilet": ("household", r"/toilet$"), "kettle": ("household", r"/kettle$"),
    "glass": ("household", r"/(glass|bottle)$"),
    "camera": ("household", r"/camera_35mm$"), "door": ("household", r"/(perc_door|open-chest)$"),
    "telephone": ("household", r"/program-124$"), "coins": ("household", r"/gold$"),
    "cash register": ("household", r"/(perc_till|cash|cash till)$"),
    "thunder": ("nature", r"/(lightning|lightningbolt|rumble)$"),
    "fire": ("nature", r"/(fire|campfire|flame-big|torch|Fire\d)$"),
    "water": ("nature", r"/(program-122|water-blast|[Ww]ater\d?)$"), "wind": ("nature", r"/wind$"),
    "explosion": ("nature", r"/(explosion|fireworks|cave-in|RocketExplosion1)$"),
    "laugh": ("vocal", r"/(dwarf-laugh|happy|excited)$"), "burp": ("vocal", r"/misc_burp$"),
    "scream": ("vocal", r"/(human-female-(die|hit)-\d|human-(die|hit)-\d|human-old-(die|hit)-\d)$"),
    "groan": ("vocal", r"/(groan|ugg|zombie-hit-\d|orc-die-\d)$"),
    "singing": ("vocal", r"/(ambi_choir|program-5[23])$"),
    "applause": ("vocal", r"/(program-126|applause)$"), "crowd": ("vocal", r"/SportsCroud\d$"),
}  # fmt: skip
SOUND = TaskPrompt("keyword", "unknown", instruction="event")
CUTS, DRUM_CUTS, HELD_OUT_CUTS, MAX_SECONDS = 12, 3, 2, 6.0
HELD_OUT_PACKAGES = ("gcompris", "openttd-opensfx")


def label_of(name: str) -> tuple[str, str] | None:
    """(label, group) of a recording's name, or None if it has no label here."""
    found = [(label, group) for label, (group, pattern) in LABELS.items() if re.search(pattern, name)]
    return found[0] if found else None


def qt_resources(path: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the files in a Qt resource collection (.rcc, format 2 or 3, plain or compressed by zlib).

    Raises:
        ValueError: it is something else.
    """
    data = path.read_bytes()
    magic, version, tree, content, names = struct.unpack_from(">4sIIII", data)
    if magic != b"qres" or version < 2:
        raise ValueError(f"{path} is not a Qt resource collection of a known version.")
    pending = [0]
    while pending:
        base = tree + 22 * pending.pop()
        name_offset, flags = struct.unpack_from(">IH", data, base)
        if flags & 2:
            count, first = struct.unpack_from(">II", data, base + 6)
            pending += range(first, first + count)
            continue
        start = content + struct.unpack_from(">I", data, base + 10)[0]
        length = struct.unpack_from(">I", data, start)[0]
        blob = data[start + 4 : start + 4 + length]
        characters = struct.unpack_from(">H", data, names + name_offset)[0]
        name = data[names + name_offset + 6 : names + name_offset + 6 + 2 * characters].decode("utf-16-be")
        yield name, zlib.decompress(blob[4:]) if flags & 1 else blob


def opensfx(path: Path) -> Iterator[tuple[str, bytes]]:
    """Names and WAV files of a Transport Tycoon sample catalogue: a table of offsets, then titles with their files.

    A title is a sentence with the author and licence; the name is its quoted part: "Ship horn" becomes `ship horn`.
    """
    data = path.read_bytes()
    count = (struct.unpack_from("<I", data)[0] & 0x7FFFFFFF) // 8
    for index in range(count):
        start, length = struct.unpack_from("<II", data, 8 * index)
        start &= 0x7FFFFFFF
        title = data[start + 1 : start + 1 + data[start]].decode("latin-1")
        name = re.sub(r"[():,]", "", title.split('"')[1]).lower().replace("/", " or ") if '"' in title else title
        yield name, data[start + 1 + data[start] : start + 1 + data[start] + length]


def recordings(work: Path) -> Iterator[tuple[str, np.ndarray]]:
    """("package/name", float32 [samples] at 16 kHz) of every recording that has a label."""
    folders = {
        "tuxpaint-stamps-default": "usr/share/tuxpaint/stamps",
        "sonic-pi-samples": "usr/share/sonic-pi/samples",
        "wesnoth-1.16-data": "usr/share/games/wesnoth",
        "hydrogen-drumkits": "usr/share/hydrogen",
        "simutrans-pak64": "usr/share/games/simutrans",
        "lincity-ng-data": "usr/share/games/lincity-ng/sounds",
    }
    for package, folder in folders.items():
        for path in sorted((fetch(package, work) / folder).rglob("*")):
            kit = f"{path.parent.name}-".lower() if package == "hydrogen-drumkits" else ""
            name = f"{package}/{kit}{path.stem.lower() if kit else path.stem}"
            if path.suffix.lower() in (".ogg", ".wav", ".flac") and "_desc" not in path.stem and label_of(name):
                try:
                    yield name, read_waveform(path)
                except soundfile.LibsndfileError:
                    continue
    programs = [program for program in range(128) if label_of(f"general-midi/program-{program}")]
    programs = [program for program in programs if program not in HELD_OUT_PROGRAMS]
    for program in programs:
        for sound in render([(program, pitch, 100, 2.0) for pitch in (48, 60, 67, 76)]):
            yield f"general-midi/program-{program}", sound
    for collection in ("explore_farm_animals", "instruments"):
        resources = fetch("gcompris-qt-data", work) / f"usr/share/gcompris-qt/rcc/{collection}.rcc"
        for name, blob in qt_resources(resources):
            if name.endswith(".ogg") and label_of(f"gcompris/{name[:-4]}"):
                yield f"gcompris/{name[:-4]}", read_waveform(io.BytesIO(blob))
    catalogue = fetch("openttd-opensfx", work) / "usr/share/games/openttd/baseset/opensfx/opensfx.cat"
    for name, blob in opensfx(catalogue):
        if label_of(f"openttd-opensfx/{name}"):
            yield f"openttd-opensfx/{name}", read_waveform(io.BytesIO(blob))


def cut(waveform: np.ndarray, rng: random.Random) -> np.ndarray:
    """A random piece of at most 6 s at a random speed (which shifts the pitch) and level."""
    rate = np.exp(rng.uniform(np.log(0.87), np.log(1.15)))
    piece = soxr.resample(waveform, SAMPLE_RATE, SAMPLE_RATE * rate).astype(np.float32)
    length = int(MAX_SECONDS * SAMPLE_RATE)
    start = rng.randrange(max(1, len(piece) - length)) if len(piece) > length else 0
    piece = piece[start : start + length]
    before, after = rng.uniform(0, 0.5), rng.uniform(0.1, 1.0)
    piece = np.pad(piece, (int(before * SAMPLE_RATE), int(after * SAMPLE_RATE)))
    return piece * (rng.uniform(0.15, 0.95) / max(np.abs(piece).max(), 1e-6))


def unanswerable(count: int) -> Iterator[tuple[str, np.ndarray]]:
    """Silence and noise of all colours and levels, with that word: nothing in them can be named or transcribed."""
    for number in range(count):
        rng = np.random.default_rng(number)
        length = int(rng.uniform(0.5, 8.0) * SAMPLE_RATE)
        level = 0.0 if number % 4 == 0 else 10 ** (rng.uniform(-70, -12) / 20)
        noise = coloured_noise(length, rng.uniform(0, 2), rng)
        waveform = (level * noise / max(np.abs(noise).max(), 1e-9)).astype(np.float32)
        yield "silence" if level == 0 else "noise", waveform


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the step."""
    add_work_argument(parser)


def run(args: argparse.Namespace) -> None:
    """Run the step."""
    lines: list[Line] = []

    def add(identifier: str, waveform: np.ndarray, text: str, group: str, source: str, split: str) -> None:
        audio = Path("clips", "sounds", f"{identifier}.flac")
        seconds = write_clip(args.work / audio, waveform)
        origin = {"group": group, "source": source, "speaker": identifier.rsplit("-cut", 1)[0]}
        lines.append(clip_line(audio, SOUND, text, seconds, split, **origin))

    trained: set[str] = set()  # labels; the first recording of a label is always for training
    for number, (name, waveform) in enumerate(recordings(args.work)):
        waveform = trim(waveform, 0.02, 0.1)
        label_and_group = label_of(name)
        if label_and_group is None or len(waveform) < 0.1 * SAMPLE_RATE:
            continue
        label, group = label_and_group
        package, stem = name.split("/")
        always_train = label not in trained or package == "general-midi"  # whose recordings are pitches of one program
        fraction = 1.0 if always_train else hash_fraction(f"{name}-{number}")
        is_held_out = package in HELD_OUT_PACKAGES and label in trained
        split = "test" if is_held_out or fraction < 0.08 else "dev" if fraction < 0.16 else "train"
        trained.add(label)
        cuts = HELD_OUT_CUTS if split != "train" else DRUM_CUTS if package == "hydrogen-drumkits" else CUTS
        for piece in range(cuts):
            rng = random.Random(f"{name}-{number}-{piece}")
            identifier = f"{package}-{stem}-{number}-cut{piece}".replace(" ", "_")
            add(identifier, cut(waveform, rng), label, group, package, split)
    for number, (kind, waveform) in enumerate(unanswerable(300)):
        split = "test" if number % 10 == 0 else "dev" if number % 10 == 1 else "train"
        add(f"{kind}-{number:03d}", waveform, UNKNOWN, "unanswerable", "synthetic", split)
    write_manifest(args.work / "manifests/sounds.jsonl", lines)
