"""A folder to upload to the Hugging Face Hub."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

import lit_compress
from lit_compress.artifact import write_card
from lit_compress.artifact.folder.card import read_card
from lit_compress.errors import ArtifactError, InvalidArgumentError

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits_int8"


def test_the_folder_is_the_artefact_and_a_page(tmp_path: Path) -> None:
    saved = lit_compress.save_pretrained(EXAMPLE, tmp_path / "saved")
    names = {"card.json", *read_card(EXAMPLE).files}
    assert {path.name for path in saved.iterdir()} == names | {"README.md"}
    assert all((saved / n).read_bytes() == (EXAMPLE / n).read_bytes() for n in names)
    batch = np.zeros((1, 1, 32, 32), np.uint8)
    found = lit_compress.from_pretrained(saved)(batch)
    np.testing.assert_array_equal(found, lit_compress.load(EXAMPLE)(batch))


def test_the_page_has_the_head_that_the_hub_reads(tmp_path: Path) -> None:
    page = (lit_compress.save_pretrained(EXAMPLE, tmp_path / "saved") / "README.md").read_text()
    _, head, text = page.split("---\n", 2)
    assert yaml.safe_load(head)["library_name"] == "lit-compress"
    assert "quickstart/0" in text
    assert "0.9582" in text


def test_a_card_cannot_end_the_block_it_stands_in(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(EXAMPLE, source)
    write_card(source, replace(read_card(source), run="a\n```\n# heading\n````"))
    page = (lit_compress.save_pretrained(source, tmp_path / "saved") / "README.md").read_text()
    assert page.count("`````") == 2


def test_saving_again_replaces_it(tmp_path: Path) -> None:
    lit_compress.save_pretrained(EXAMPLE, tmp_path / "saved")
    lit_compress.pack(EXAMPLE, tmp_path / "packed")
    saved = lit_compress.save_pretrained(tmp_path / "packed", tmp_path / "saved")
    assert not (saved / "model.onnx").exists()
    assert lit_compress.from_pretrained(saved).card == read_card(tmp_path / "packed")


def test_a_clone_of_a_repository_is_not_replaced(tmp_path: Path) -> None:
    """Its history stood in the folder that was replaced."""
    saved = lit_compress.save_pretrained(EXAMPLE, tmp_path / "saved")
    (saved / ".git").mkdir()
    with pytest.raises(ArtifactError, match=r"holds \.git, which would be lost"):
        lit_compress.save_pretrained(EXAMPLE, saved)
    assert (saved / ".git").is_dir()


def test_other_folders_are_not_written(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ArtifactError, match="not an artefact"):
        lit_compress.save_pretrained(EXAMPLE, tmp_path)
    with pytest.raises(InvalidArgumentError, match="the artefact itself"):
        lit_compress.save_pretrained(EXAMPLE, EXAMPLE)


def test_a_damaged_artefact_is_not_written(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE, tmp_path / "source")
    (tmp_path / "source" / "replay.npz").write_bytes(b"other")
    with pytest.raises(ArtifactError, match="another SHA-256"):
        lit_compress.save_pretrained(tmp_path / "source", tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
