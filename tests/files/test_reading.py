from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from lit_compress.errors import ArtifactError, ScanError
from lit_compress.files.reading import as_path, read_limited, reading, sha256_of


@pytest.mark.parametrize(
    "error", [KeyError("a"), MemoryError(), RecursionError("deep"), OSError(5, "x")]
)
def test_any_error_names_the_file(error: Exception) -> None:
    message = r"card\.json cannot be read"
    with pytest.raises(ArtifactError, match=message) as caught, reading("card.json", ArtifactError):
        raise error
    assert caught.value.__cause__ is error
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [ScanError("own"), KeyboardInterrupt()])
def test_errors_of_the_package_and_interrupts_pass(error: BaseException) -> None:
    with pytest.raises(type(error)), reading("card.json", ArtifactError):
        raise error


@pytest.mark.parametrize("path", [7, None, b"a", "a\0b"])
def test_what_is_no_path_is_refused(path: object) -> None:
    with pytest.raises(ArtifactError):
        as_path(path, ArtifactError)


def test_content_up_to_the_limit_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert read_limited(tmp_path / "a", 5, ArtifactError, "a card") == b"12345"
    assert sha256_of(tmp_path / "a", ArtifactError) == hashlib.sha256(b"12345").hexdigest()
    with pytest.raises(ArtifactError, match="larger than 4 bytes, so it is not a card"):
        read_limited(tmp_path / "a", 4, ArtifactError, "a card")


@pytest.mark.parametrize("name", ["missing", "x" * 300, "y" * 5000, "."])
def test_a_file_that_cannot_be_opened(tmp_path: Path, name: str) -> None:
    with pytest.raises(ArtifactError, match="cannot be read") as caught:
        read_limited(tmp_path / name, 5, ArtifactError, "a card")
    assert len(str(caught.value)) < 1500
    with pytest.raises(ArtifactError, match="cannot be read"):
        sha256_of(tmp_path / name, ArtifactError)
