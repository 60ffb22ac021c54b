"""Whole or not at all: what stands in the folder after a block that failed or was killed."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lit_compress.artifact import Card, check_target, folder_swap, read_card, sha256, write_card
from lit_compress.artifact.write import check_replaceable
from lit_compress.errors import ArtifactError

OLD, NEW = Card("old", (), {}), Card("new", (), {})


def names(folder: Path) -> list[str]:
    return sorted(child.name for child in folder.iterdir())


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    folder = tmp_path / "artifact"
    folder.mkdir()
    write_card(folder, OLD)
    (folder / "old.bin").write_bytes(b"old")
    return folder


def assert_old(folder: Path) -> None:
    assert names(folder) == ["card.json", "old.bin"]
    assert read_card(folder) == OLD
    assert (folder / "old.bin").read_bytes() == b"old"
    assert names(folder.parent) == [folder.name]


def fill(folder: Path) -> None:
    write_card(folder, NEW)
    (folder / "new.bin").write_bytes(b"new")


def swap(path: Path | str, error: type[BaseException] | None = None) -> None:
    with folder_swap(path) as partial:
        fill(partial)
        if error:
            raise error


refusing = pytest.mark.parametrize("act", [check_target, swap])


def test_a_new_folder(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b"
    with folder_swap(str(target)) as partial:
        assert names(partial) == []
        fill(partial)
        assert not target.exists()
    assert names(target) == ["card.json", "new.bin"]
    assert names(target.parent) == ["b"]


def test_an_old_artifact_is_replaced(artifact: Path) -> None:
    with folder_swap(artifact) as partial:
        fill(partial)
        (partial / "deep").mkdir()
        (partial / "deep" / "file").write_text("x")
        assert read_card(artifact) == OLD
    assert names(artifact) == ["card.json", "deep", "new.bin"]
    assert read_card(artifact) == NEW
    assert names(artifact.parent) == ["artifact"]


def test_a_path_without_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    swap("artifact")
    assert names(tmp_path) == ["artifact"]
    assert read_card("artifact") == NEW


@refusing
def test_an_empty_working_directory_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: Callable[[str], None]
) -> None:
    """``.`` has no name to put a temporary next to: it came out as a bare ValueError."""
    (tmp_path / "inside").mkdir()
    monkeypatch.chdir(tmp_path / "inside")
    act(".")
    assert names(tmp_path) == ["inside"]
    assert names(tmp_path / "inside") == ([] if act is check_target else ["card.json", "new.bin"])


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_block_that_raises_leaves_the_old_whole(
    artifact: Path, kind: type[BaseException]
) -> None:
    with pytest.raises(kind):
        swap(artifact, kind)
    assert_old(artifact)


def test_a_block_that_raises_leaves_nothing_new(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        swap(tmp_path / "new", ZeroDivisionError)
    assert names(tmp_path) == []


def test_a_killed_process_leaves_the_old_whole(artifact: Path) -> None:
    script = (
        "import os, sys\n"
        "from lit_compress.artifact import folder_swap\n"
        "with folder_swap(sys.argv[1]) as partial:\n"
        "    (partial / 'card.json').write_text('{}')\n"
        "    os._exit(9)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(artifact)], check=False)
    assert done.returncode == 9
    assert names(artifact) == ["card.json", "old.bin"]
    assert read_card(artifact) == OLD
    swap(artifact)
    assert read_card(artifact) == NEW


@pytest.mark.parametrize("role", ["part", "old"])
def test_what_a_killed_process_of_the_same_number_left_is_no_obstacle(
    artifact: Path, role: str
) -> None:
    """In a container each run has the same process id, so the leavings have the same name."""
    stale = artifact.with_name(f".artifact.{os.getpid()}.{role}")
    stale.mkdir()
    (stale / "half.bin").write_bytes(b"half")
    swap(artifact)
    assert names(artifact) == ["card.json", "new.bin"]
    assert names(artifact.parent) == ["artifact"]


def test_a_rename_that_fails_puts_the_old_back(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.rename

    def full(source: Path, target: Path) -> None:
        if str(source).endswith("part") and Path(target) == artifact:
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "rename", full)
    monkeypatch.setattr("lit_compress.files.folders.exchange", lambda *_: False)
    with pytest.raises((OSError, ArtifactError), match="No space"):
        swap(artifact)
    assert_old(artifact)


def test_a_link_to_an_artifact_leaves_no_temporary(artifact: Path) -> None:
    """The old link was left behind as a hidden file."""
    link = artifact.with_name("link")
    link.symlink_to(artifact)
    swap(link)
    assert read_card(link) == NEW
    assert names(artifact.parent) == ["artifact", "link"]


@refusing
def test_a_folder_that_is_no_artifact_is_not_replaced(
    tmp_path: Path, act: Callable[[Path], None]
) -> None:
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter.tex").write_text("years of work")
    with pytest.raises(ArtifactError, match=r"thesis is not empty and has no card\.json"):
        act(folder)
    assert (folder / "chapter.tex").read_text() == "years of work"
    assert names(tmp_path) == ["thesis"]


@refusing
def test_a_file_is_not_replaced(tmp_path: Path, act: Callable[[Path], None]) -> None:
    path = tmp_path / "file"
    path.write_text("kept")
    with pytest.raises(ArtifactError, match="file is a file: name another dirpath"):
        act(path)
    assert path.read_text() == "kept"
    assert names(tmp_path) == ["file"]


@refusing
@pytest.mark.parametrize("below", ["artifact", "deep/artifact"])
def test_a_path_under_a_file_is_refused(
    tmp_path: Path, act: Callable[[Path], None], below: str
) -> None:
    path = tmp_path / "file"
    path.write_text("kept")
    with pytest.raises(ArtifactError, match=r"cannot be written \(.*\): name another dirpath"):
        act(path / below)
    assert path.read_text() == "kept"
    assert names(tmp_path) == ["file"]


def test_targets_that_will_do(artifact: Path) -> None:
    empty = artifact.with_name("empty")
    empty.mkdir()
    for path in (artifact, empty, artifact.with_name("new"), str(artifact)):
        check_target(path)
    assert names(artifact) == ["card.json", "old.bin"]
    assert names(artifact.parent) == ["artifact", "empty"]


def test_write_card(tmp_path: Path) -> None:
    assert write_card(str(tmp_path), OLD) == tmp_path / "card.json"
    assert (tmp_path / "card.json").read_text("utf-8") == OLD.to_json()
    write_card(tmp_path, NEW)
    assert read_card(tmp_path) == NEW
    assert names(tmp_path) == ["card.json"]


def test_a_card_that_is_not_valid_leaves_the_old_one(tmp_path: Path) -> None:
    write_card(tmp_path, OLD)
    with pytest.raises(ArtifactError, match="cannot be written as JSON"):
        write_card(tmp_path, Card("new", (), {"x": float("nan")}))
    assert read_card(tmp_path) == OLD
    assert names(tmp_path) == ["card.json"]


def test_a_card_whose_rename_fails_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    write_card(tmp_path, OLD)
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(ArtifactError, match="No space left"):
        write_card(tmp_path, NEW)
    assert read_card(tmp_path) == OLD
    assert names(tmp_path) == ["card.json"]


@pytest.mark.parametrize("folder", ["missing", "file"])
def test_a_card_needs_a_folder(tmp_path: Path, folder: str) -> None:
    """In place of a folder that was a file, cleaning up raised an error of its own."""
    (tmp_path / "file").write_text("kept")
    with pytest.raises(ArtifactError, match=r"card\.json cannot be written"):
        write_card(tmp_path / folder, NEW)
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("size", [0, 1, 3 << 20])
def test_sha256(tmp_path: Path, size: int) -> None:
    data = bytes(range(256)) * (size // 256) or bytes(size)
    path = tmp_path / "file"
    path.write_bytes(data)
    assert sha256(path) == sha256(str(path)) == hashlib.sha256(data).hexdigest()


def test_what_would_be_lost_is_named_without_a_trace(tmp_path: Path) -> None:
    check_replaceable(tmp_path / "new" / "artifact")
    assert names(tmp_path) == []
    (tmp_path / "notes.txt").write_text("mine")
    for path, why in ((tmp_path, "is not empty"), (tmp_path / "notes.txt", "is a file")):
        with pytest.raises(ArtifactError, match=why):
            check_replaceable(path)
