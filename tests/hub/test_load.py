"""An artefact by its name on the Hugging Face Hub, from what was downloaded before."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import lit_compress
from lit_compress.artifact.folder.card import read_card
from lit_compress.errors import ArtifactError

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits_int8"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A folder of downloads, as huggingface_hub lays it out: links to files named by content."""
    pytest.importorskip("huggingface_hub", reason="the extra hub is not installed")
    repository = tmp_path / "models--team--digits"
    for name in ("blobs", "refs", f"snapshots/{COMMIT}"):
        (repository / name).mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    for name in ("card.json", *read_card(EXAMPLE).files):
        shutil.copyfile(EXAMPLE / name, repository / "blobs" / name)
        (repository / "snapshots" / COMMIT / name).symlink_to(f"../../blobs/{name}")
    return tmp_path


def test_a_folder_needs_no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    batch = np.zeros((1, 1, 32, 32), np.uint8)
    found = lit_compress.from_pretrained(EXAMPLE, threads=2)(batch)
    np.testing.assert_array_equal(found, lit_compress.load(EXAMPLE)(batch))


@pytest.mark.parametrize("revision", [None, "main", COMMIT])
def test_a_repository_that_was_downloaded(cache: Path, revision: str | None) -> None:
    model = lit_compress.from_pretrained(
        "team/digits", revision=revision, cache_dir=cache, local_files_only=True
    )
    assert model.card == read_card(EXAMPLE)


def test_a_repository_that_is_not_there(cache: Path) -> None:
    with pytest.raises(ArtifactError, match=r"team/other cannot be downloaded.*check its name"):
        lit_compress.from_pretrained("team/other", cache_dir=cache, local_files_only=True)


def test_a_damaged_download_is_refused(cache: Path) -> None:
    (cache / "models--team--digits" / "blobs" / "model.onnx").write_bytes(b"other")
    with pytest.raises(ArtifactError, match="another SHA-256"):
        lit_compress.from_pretrained("team/digits", cache_dir=cache, local_files_only=True)


@pytest.mark.parametrize("name", ["nowhere", "a/b/c", "https://hub/a", "../x/y", "team/ digits"])
def test_neither_a_folder_nor_a_repository(name: str) -> None:
    with pytest.raises(ArtifactError, match=r"there is no folder .*owner/name"):
        lit_compress.from_pretrained(name)


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lit_compress.hub.load.find_spec", lambda _: None)
    with pytest.raises(ArtifactError, match=r"pip install 'lit-compress\[hub\]'"):
        lit_compress.from_pretrained("team/digits")


def test_no_file_but_those_of_the_card_is_asked_for(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repository may hold terabytes, or code: neither is downloaded."""
    import huggingface_hub

    asked: list[list[str]] = []

    def record(name: str, allow_patterns: list[str], **_: object) -> str:
        asked.append(allow_patterns)
        return str(cache / "models--team--digits" / "snapshots" / COMMIT)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", record)
    lit_compress.from_pretrained("team/digits")
    assert asked == [["card.json"], ["card.json", *read_card(EXAMPLE).files]]
