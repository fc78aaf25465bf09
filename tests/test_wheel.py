"""The package as others install it: what its wheel holds, and that it works from any folder."""

import os
import re
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
import zipfile
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def pins(path: Path) -> dict[str, str]:
    """The versions in a list of requirements, by name."""
    lines = [line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return {re.sub(r"\[.*\]", "", name): version for name, version in (line.split("==") for line in lines if line)}


def requirements(extra: str) -> list[Requirement]:
    """What an extra asks for, including the extras of this project that it names."""
    found = []
    for requirement in map(Requirement, PROJECT["optional-dependencies"][extra]):
        if requirement.name == PROJECT["name"]:
            found += [inner for name in requirement.extras for inner in requirements(name)]
        else:
            found.append(requirement)
    return found


def test_pinned_versions_are_within_the_ranges():
    needed = [Requirement(each) for each in PROJECT["dependencies"]]
    pinned = pins(ROOT / "requirements.txt")
    assert set(pinned) == {requirement.name for requirement in needed}
    test_pins = pins(ROOT / "tests" / "requirements.txt")
    dev = requirements("dev")
    assert set(test_pins) == {requirement.name for requirement in dev}
    for requirement in [*needed, *dev]:
        version = (pinned | test_pins)[requirement.name]
        assert requirement.specifier.contains(version), f"{requirement} and {version}"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", folder, ROOT], check=True)
    [path] = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder]
    subprocess.run([*pip, wheel], check=True)
    return folder


@pytest.fixture
def environment(installed) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(installed), "GRADIO_ANALYTICS_ENABLED": "False"}


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_its_data(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if not name.endswith("/")}
    package = {name.removeprefix("qwen_audio_chat/") for name in names if name.startswith("qwen_audio_chat/")}
    assert {name.split("/")[0] for name in names - {f"qwen_audio_chat/{name}" for name in package}} == {
        f"qwen_audio_chat-{PROJECT['version']}.dist-info"
    }
    source = ROOT / "qwen_audio_chat"
    files = {path for path in source.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assets = {path for name in ("pocket", "examples") for path in (ROOT / "assets" / name).iterdir()}
    expected = {path.relative_to(source).as_posix() for path in files}
    expected |= {path.relative_to(ROOT).as_posix() for path in assets}
    assert package == expected and {"py.typed", "demo/style.css", "demo/player.js"} <= package


@pytest.mark.slow
def test_the_installed_package_names_its_command_and_extras(installed):
    [folder] = installed.glob("*.dist-info")
    distribution = PathDistribution(folder)
    assert distribution.version == PROJECT["version"]
    assert set(distribution.metadata.get_all("Provides-Extra")) == set(PROJECT["optional-dependencies"])
    assert [each.name for each in distribution.entry_points] == ["qwen-audio-chat"]


@pytest.mark.slow
def test_chat_with_the_shipped_model_from_any_folder(installed, environment, tmp_path):
    clip = installed / "qwen_audio_chat" / "assets" / "examples" / "new-password.flac"
    command = [installed / "bin" / "qwen-audio-chat", "chat", "--model", "pocket", "--device", "cpu"]
    arguments = ["--audio", clip, "--text", "What does the person say?"]
    done = subprocess.run(
        [*command, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "password" in done.stdout


@pytest.mark.slow
def test_a_mistake_has_exit_code_2_and_a_sentence(installed, environment, tmp_path):
    command = [installed / "bin" / "qwen-audio-chat", "chat", "--audio", "nowhere.wav", "--text", "?"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2 and done.stderr.startswith("Error:") and done.stdout == ""


@pytest.mark.slow
def test_serve_from_any_folder(installed, environment, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [installed / "bin" / "qwen-audio-chat", "serve", "--model", "pocket", "--device", "cpu"]
    log = tmp_path / "log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [*command, "--port", str(port)], cwd=tmp_path, env=environment, stdout=output, stderr=output
        )
    try:
        deadline = time.monotonic() + 180
        while not is_healthy(port):
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)
    finally:
        server.terminate()
        server.wait(60)


def is_healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as response:
            return response.status == 200
    except (urllib.error.URLError, OSError):
        return False
