"""A card is read whole and valid, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lit_compress.artifact import load
from lit_compress.artifact.folder.card import CARD_LIMIT, read_card
from lit_compress.errors import ArtifactError


@pytest.mark.parametrize("read", [load, read_card])
@pytest.mark.parametrize("name", ["empty", "missing", "file"])
def test_not_an_artifact(tmp_path: Path, read: Callable[[Path], object], name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("{}")
    with pytest.raises(ArtifactError, match=rf"{name} is not an artefact: it has no card\.json"):
        read(tmp_path / name)


def test_read_card(artifact: Path) -> None:
    assert read_card(str(artifact)).run == "run"


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"{", "is not JSON"), (b"\xff\xfe{}", "is not UTF-8 text"), (b"{}", "does not follow")],
)
def test_a_damaged_card(artifact: Path, content: bytes, message: str) -> None:
    path = artifact / "card.json"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=f"{path} {message}"):
        read_card(artifact)


def test_a_card_that_is_too_large_is_not_read(artifact: Path) -> None:
    with open(artifact / "card.json", "r+b") as file:
        file.truncate(CARD_LIMIT + 1)
    with pytest.raises(ArtifactError, match="larger than 16,777,216 bytes"):
        read_card(artifact)
