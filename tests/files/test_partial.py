from __future__ import annotations

import os
from pathlib import Path

import pytest

from lit_compress.files.partial import Part, clear_litter, sibling


@pytest.mark.parametrize("folder", [False, True])
def test_what_is_being_written_is_no_litter(tmp_path: Path, folder: bool) -> None:
    target = tmp_path / "target"
    part = Part(target, folder)
    clear_litter(target)
    assert part.path.exists()
    part.unlock()
    clear_litter(target)
    assert not part.path.exists()


def test_litter_of_other_targets_stays(tmp_path: Path) -> None:
    other = sibling(tmp_path / "target.other", "part")
    other.touch()
    (tmp_path / ".target.notes.part").touch()
    clear_litter(tmp_path / "target")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".target.notes.part", other.name]


def test_an_old_folder_is_put_back_if_nothing_stands_there(tmp_path: Path) -> None:
    target = tmp_path / "target"
    sibling(target, "old").mkdir()
    clear_litter(target)
    assert list(tmp_path.iterdir()) == [target]


def test_two_parts_have_two_names(tmp_path: Path) -> None:
    names = {sibling(tmp_path / "target", "part") for _ in range(10)}
    assert len(names) == 10
    assert all(f".{os.getpid()}-" in path.name for path in names)


def test_a_long_name_leaves_room(tmp_path: Path) -> None:
    """A file whose name has 255 bytes could not be written: its partial name was too long."""
    for name in ("x" * 255, "é" * 127):
        part = Part(tmp_path / name, folder=False)
        part.unlock()
        assert part.path.exists()
