"""Files and folders that are whole or not there, and what is said where they can't be written."""

import pytest

from qwen_audio_chat.errors import UserError
from qwen_audio_chat.files import atomic_folder, atomic_write, record_run_identity


@pytest.fixture
def blocked(tmp_path):
    """A path below a file, where nothing can be written, not even by root."""
    (tmp_path / "file").write_text("")
    return tmp_path / "file" / "below"


def test_a_place_that_cannot_be_written_is_told_in_a_sentence(blocked):
    for write in (
        lambda: atomic_write(blocked / "a.txt", "text"),
        lambda: record_run_identity(blocked / "run.json", {"seed": 1}),
        lambda: atomic_folder(blocked / "model").__enter__(),
    ):
        with pytest.raises(UserError, match="can't be written .*Not a directory"):
            write()


def test_an_interrupted_folder_leaves_the_old_one(tmp_path):
    with atomic_folder(tmp_path / "model") as folder:
        (folder / "config.json").write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_folder(tmp_path / "model") as folder:
        (folder / "config.json").write_text("new")
        raise KeyboardInterrupt
    assert (tmp_path / "model" / "config.json").read_text() == "old"
