import os
import stat
from pathlib import Path

import pytest
from conftest import ForeignModule

from lit_compress.checkpoints.saved_weights import save_weights
from lit_compress.files import write_whole


def test_text_and_bytes_are_written_with_their_folder(tmp_path: Path) -> None:
    path = write_whole(tmp_path / "a" / "b" / "text", "é\n")
    assert path.read_bytes() == "é\n".encode()
    assert write_whole(str(path), b"\x00\xff").read_bytes() == b"\x00\xff"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt()])
def test_what_was_there_stays_when_writing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    path = write_whole(tmp_path / "file", "old")

    def fail(_: int) -> None:
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(type(error)):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    write_whole(tmp_path / "file", "")
    with pytest.raises(OSError, match="file"):
        write_whole(tmp_path / "file" / "inside", "")


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_permissions_are_those_of_the_umask(tmp_path: Path, umask: int, mode: int) -> None:
    """safetensors wrote 0600 whatever the umask: another user could not load the artefact."""
    before = os.umask(umask)
    try:
        save_weights(ForeignModule(), tmp_path / "model.safetensors")
        write_whole(tmp_path / "card.json", "{}")
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {mode}
    assert len(list(tmp_path.iterdir())) == 2
