"""A file that is not the one of the card is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from artifact.conftest import FILES, INPUTS
from lit_compress.artifact import load, read_card
from lit_compress.artifact.folder.checksums import check_files, checked_content
from lit_compress.errors import ArtifactError


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file(artifact: Path, name: str) -> None:
    (artifact / name).unlink()
    with pytest.raises(ArtifactError, match=f"has no {name}, which its card lists"):
        load(artifact)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("cut", [True, False])
def test_a_changed_or_cut_file(artifact: Path, name: str, cut: bool) -> None:
    data = (artifact / name).read_bytes()
    (artifact / name).write_bytes(data[:-1] if cut else data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ArtifactError, match=f"{name} has another SHA-256 than its card lists"):
        load(artifact, check="all")


def test_only_what_is_run_is_compared(artifact: Path) -> None:
    """Loading hashed the float weights, four times the bytes that it runs, at each start."""
    (artifact / "float.safetensors").write_bytes(b"Weights")
    assert load(artifact)(INPUTS).shape == (2, 4)
    (artifact / "replay.npz").write_bytes(b"other")
    assert load(artifact, check=False)(INPUTS).shape == (2, 4)
    with pytest.raises(ArtifactError, match=r"replay\.npz has another SHA-256"):
        load(artifact)
    (artifact / "model.onnx").write_bytes(b"other")
    with pytest.raises(ArtifactError, match=r"model\.onnx has another SHA-256"):
        load(artifact, check=False)


def test_files_that_are_read_anyway_are_passed_over(artifact: Path) -> None:
    card = read_card(artifact)
    (artifact / "model.onnx").write_bytes(b"another")
    check_files(artifact, card, but=("model.onnx",))
    with pytest.raises(ArtifactError, match="another SHA-256"):
        check_files(artifact, card)


def test_the_content_is_that_of_the_card(artifact: Path) -> None:
    card = read_card(artifact)
    assert checked_content(artifact, card, "float.safetensors") == b"weights"
    (artifact / "float.safetensors").write_bytes(b"Weights")
    with pytest.raises(ArtifactError, match="another SHA-256"):
        checked_content(artifact, card, "float.safetensors")
