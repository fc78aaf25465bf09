"""The tiny model on disk."""

from tests.training.conftest import tiny_folder  # noqa: F401  a fixture
