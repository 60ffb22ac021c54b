"""A reader next to a writer reads again, and only then."""

from __future__ import annotations

from pathlib import Path

import pytest

from lit_compress.artifact.folder import replaced
from lit_compress.artifact.folder.replaced import TRIES, while_replaced
from lit_compress.errors import ArtifactError


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaced, "PAUSE", 0)


class Reader:
    """Fails so often, while a writer replaces the card each time."""

    def __init__(self, folder: Path, fails: int, writes: bool = True) -> None:
        self.folder, self.fails, self.writes = folder, fails, writes
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.writes:
            (self.folder / "card.json").write_text("x" * self.calls)
        if self.calls <= self.fails:
            raise ArtifactError("changed")
        return "read"


@pytest.mark.parametrize("fails", [0, 1, TRIES])
def test_what_was_replaced_is_read_again(tmp_path: Path, fails: int) -> None:
    reader = Reader(tmp_path, fails)
    assert while_replaced(tmp_path, reader) == "read"
    assert reader.calls == fails + 1


def test_what_is_replaced_all_the_time_is_given_up(tmp_path: Path) -> None:
    reader = Reader(tmp_path, TRIES + 1)
    with pytest.raises(ArtifactError, match="changed"):
        while_replaced(tmp_path, reader)
    assert reader.calls == TRIES + 1


def test_what_is_damaged_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "card.json").write_text("{}")
    reader = Reader(tmp_path, 9, writes=False)
    with pytest.raises(ArtifactError, match="changed"):
        while_replaced(tmp_path, reader)
    assert reader.calls == 1


def test_a_folder_that_is_put_away_meanwhile_is_read_again(tmp_path: Path) -> None:
    """In two renames there is a moment without an artefact."""
    card = tmp_path / "card.json"

    def read() -> str:
        if not card.exists():
            card.write_text("new")  # the writer, meanwhile
            raise ArtifactError("has no card")
        return card.read_text()

    assert while_replaced(tmp_path, read) == "new"
