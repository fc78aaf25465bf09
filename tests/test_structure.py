"""The structure of the package: which room imports which, where imports stand, how files are named and listed.

python -m tests.test_structure           prints the import graph of the rooms, one line for each arrow
python -m tests.test_structure readme    writes the README's listing of files from their docstrings
"""

import ast
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "qwen_audio_chat"

# A room is a folder or a single module of the package. It may import rooms of the lines above its own, and no others.
# What the commands share stands lower than they do, because the steps of the pocket's recipe use it as well.
LEVELS = (
    ("errors",),
    ("files", "resources"),
    ("audio",),
    ("prompts",),
    ("model",),
    ("engine",),
    ("ctc",),
    ("reply",),
    ("chat",),
    ("transcripts",),
    ("answering",),
    ("loading", "data", "commands.arguments"),
    ("demo", "training", "evaluation", "benchmark"),
    ("pocket",),
    ("commands",),
    ("__init__", "__main__"),
)
ROOMS = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}

# Rooms whose functions may import modules of the package: help texts and wrong arguments needn't wait for PyTorch.
LAZY_ROOMS = ("commands", "loading")

# Libraries that may be imported inside a function, and why.
LAZY_LIBRARIES = {
    "bitsandbytes": "optional, and looks for a GPU when it is imported",
    "ctranslate2": "optional: a peer that the benchmark measures if it is installed",
    "datasets": "optional: only for Hugging Face data sets",
    "jiwer": "optional: only for evaluation",
    "huggingface_hub": "only for models that aren't on this machine",
    "llama_cpp": "optional: a peer that the benchmark measures if it is installed",
    "matplotlib": "heavy, and only for pictures",
    "modelscope": "heavy, and only for models from its hub",
    "peft": "heavy, and only for adapters",
    "pycocoevalcap": "optional: only for the metrics of captions",
    "pyworld": "optional, and built from source: only for making the pocket's data",
    "sacrebleu": "its tokenizer of Japanese is optional",
    "sklearn": "heavy and optional: only for evaluation",
    "spaces": "optional: there on ZeroGPU only",
    "torch": "heavy: a help text and a wrong argument need not wait for it",
    "transformers": "heavy: a help text and a wrong argument need not wait for it",
}


@dataclass(frozen=True)
class Import:
    """One import of a module or of a name in a module."""

    importer: str  # dotted, without the package's own name: "demo.page"; "" is the package itself
    target: str  # the same for a module of the package, else the name of a library
    is_own: bool
    is_lazy: bool  # inside a function
    line: int


def module_files() -> dict[str, Path]:
    """Every module of the package by its dotted name; a folder's `__init__` has the name of the folder."""
    files = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


MODULES = module_files()


def imports_of(module: str) -> Iterator[Import]:
    """All imports in a module, those of type annotations included."""
    path = MODULES[module]
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    package = [part for part in package if part]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lazy = {id(child) for function in functions for child in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, alias.name.split(".")[0], False, id(node) in lazy, node.lineno)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield Import(module, (node.module or "").split(".")[0], False, id(node) in lazy, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1]
            base += node.module.split(".") if node.module else []
            for alias in node.names:
                inner = ".".join([*base, alias.name])
                yield Import(module, inner if inner in MODULES else ".".join(base), True, id(node) in lazy, node.lineno)


IMPORTS = [each for module in MODULES for each in imports_of(module)]


def room_of(module: str) -> str:
    """The room that a module belongs to."""
    return module if module in ROOMS else module.split(".")[0] or "__init__"


def room_graph() -> dict[str, Counter]:
    """For each room the rooms it imports, with the number of imports."""
    graph = defaultdict(Counter)
    for each in IMPORTS:
        if each.is_own and room_of(each.importer) != room_of(each.target):
            graph[room_of(each.importer)][room_of(each.target)] += 1
    return graph


def test_every_room_has_a_level():
    assert {room_of(module) for module in MODULES} - set(ROOMS) == set()


def test_no_room_imports_a_higher_one_or_one_beside_it():
    wrong = [
        f"{each.importer}:{each.line} imports {each.target}"
        for each in IMPORTS
        if each.is_own
        and room_of(each.importer) != room_of(each.target)
        and ROOMS[room_of(each.target)] >= ROOMS[room_of(each.importer)]
    ]
    assert not wrong, "\n" + "\n".join(wrong)


def test_modules_import_each_other_in_no_circle():
    graph = defaultdict(set)
    for each in IMPORTS:
        if each.is_own and each.importer != each.target:
            graph[each.importer].add(each.target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(error.args[1][::-1]))


def test_imports_inside_functions_are_of_heavy_or_optional_libraries():
    wrong = [
        f"{each.importer}:{each.line} imports {each.target}"
        for each in IMPORTS
        if each.is_lazy
        and (room_of(each.importer) not in LAZY_ROOMS if each.is_own else each.target not in LAZY_LIBRARIES)
    ]
    assert not wrong, "\n" + "\n".join(wrong)
    unused = set(LAZY_LIBRARIES) - {each.target for each in IMPORTS if each.is_lazy}
    assert unused == set()


def test_no_two_files_have_the_same_name():
    names = Counter(path.name for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    repeated = {name for name, count in names.items() if count > 1}
    assert repeated - {"__init__.py", "__main__.py", "README.md"} == set()


def first_line(path: Path) -> str:
    """What a file says about itself: the first line of its docstring, or sentence of the comment at its head."""
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]
    return source.partition("\n")[0].strip("/*# ").partition(". ")[0].rstrip(".") + "."


def listing() -> str:
    """The README's listing: the rooms in the order in which they may import each other, then every file."""
    rooms = [room for rooms in reversed(LEVELS) for room in rooms if "." not in room]
    width = max(map(len, rooms)) + 4
    overview = []
    for room in rooms:
        path = PACKAGE / room / "__init__.py"
        name, path = (f"{room}/", path) if path.exists() else (f"{room}.py", PACKAGE / f"{room}.py")
        overview.append(f"  {name:<{width}}{first_line(path)}")
    files = []
    for path in sorted(PACKAGE.rglob("*"), key=lambda path: (path.relative_to(PACKAGE).parent.parts, path.name)):
        if path.suffix in (".py", ".js", ".css") and path.name != "__init__.py":
            files.append((path.relative_to(PACKAGE).as_posix(), first_line(path)))
    width = max(len(name) for name, _ in files) + 2
    details = [f"{name:<{width}}{line}" for name, line in files]
    return "\n".join([
        "A room imports only rooms that are listed below it.", "", "```",
        "web_demo.py           " + first_line(ROOT / "web_demo.py"), "qwen_audio_chat/", *overview,
        "assets/               the pocket model, example clips, a notebook",
        "tests/                laid out as the package", "```", "",
        "<details><summary>Every file of the package</summary>", "", "```", *details, "```", "", "</details>",
    ])  # fmt: skip


LISTING = re.compile(r"(?<=<!-- listing -->\n).*?(?=<!-- end of listing -->)", re.DOTALL)


def test_the_readme_lists_every_file_with_its_docstring():
    assert all(first_line(path) for path in MODULES.values())
    found = LISTING.search((ROOT / "README.md").read_text(encoding="utf-8"))
    assert found and found[0] == listing() + "\n", "run: python -m tests.test_structure readme"


def print_graph() -> None:
    graph = room_graph()
    for room in ROOMS:
        for target in sorted(graph[room], key=lambda target: ROOMS[target]):
            upward = "   UPWARD" if ROOMS[target] >= ROOMS[room] else ""
            print(f"{room} -> {target} ({graph[room][target]}){upward}")


if __name__ == "__main__":
    if sys.argv[1:] == ["readme"]:
        readme = ROOT / "README.md"
        readme.write_text(LISTING.sub(lambda _: listing() + "\n", readme.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print_graph()
