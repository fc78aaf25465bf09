"""Where the files that ship with the package are: the pocket model (what `--model pocket` means) and example clips."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_INSTALLED = _PACKAGE / "assets"  # a wheel holds the assets inside the package, a checkout beside it

ASSETS = _INSTALLED if _INSTALLED.is_dir() else _PACKAGE.parent / "assets"
POCKET = ASSETS / "pocket"
EXAMPLES = ASSETS / "examples"


def resolve_model_name(name: str) -> str:
    """The folder of the shipped model for "pocket"; any other folder or hub id stays as it is."""
    return str(POCKET) if name == "pocket" else name
