from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest

from lit_compress.datamodules.torchvision_data import open_dataset
from lit_compress.errors import CorruptDataError, DataNotFoundError


class Maker:
    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error
        self.calls: list[bool] = []

    def __call__(self, fetch: bool) -> str:
        self.calls.append(fetch)
        if self.error is not None:
            raise self.error
        return "made"


@pytest.fixture
def wanted(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "folder"
    folder.mkdir()
    paths = [folder / name for name in ("a", "b", "c")]
    for path in paths:
        path.write_text("data")
    return paths


@pytest.mark.parametrize("download", [True, False])
def test_files_that_are_there(tmp_path: Path, wanted: list[Path], download: bool) -> None:
    make = Maker()
    assert open_dataset("Set", str(tmp_path), iter(wanted), download, make) == "made"
    assert make.calls == [False]


def test_files_that_are_missing_are_fetched(tmp_path: Path, wanted: list[Path]) -> None:
    make = Maker()
    wanted[1].unlink()
    assert open_dataset("Set", str(tmp_path), wanted, True, make) == "made"
    assert make.calls == [True]


def test_nothing_is_downloaded_if_that_is_not_allowed(tmp_path: Path, wanted: list[Path]) -> None:
    make = Maker()
    wanted[1].unlink()
    wanted[1].mkdir()  # a folder is not a file
    with pytest.raises(DataNotFoundError) as caught:
        open_dataset("Set", str(tmp_path), wanted, False, make)
    assert make.calls == []
    assert str(caught.value) == (
        f"Set is not under {tmp_path} (looked for folder/b), and data.download is false. Either "
        "set --data.data_dir to a folder that has it in torchvision's layout, or run once with a "
        "network connection and --data.download true"
    )


def test_only_two_missing_files_are_named(tmp_path: Path, wanted: list[Path]) -> None:
    for path in wanted:
        path.unlink()
    with pytest.raises(DataNotFoundError, match=r"\(looked for folder/a, folder/b \.\.\.\)"):
        open_dataset("Set", str(tmp_path), wanted, False, Maker())


@pytest.mark.parametrize("spelling", ["data", "./data", "data/", "sub/../data"])
def test_a_relative_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, spelling: str) -> None:
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataNotFoundError, match=rf"under {tmp_path}/data \(looked for x/y\)"):
        open_dataset("Set", spelling, [Path(spelling) / "x" / "y"], False, Maker())


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError("first line\nsecond line"), "first line"),
        (EOFError(), "EOFError"),
        (ValueError("x"), "x"),
    ],
)
def test_errors_of_reading_and_of_downloading(
    tmp_path: Path, wanted: list[Path], error: Exception, said: str
) -> None:
    with pytest.raises(CorruptDataError, match=rf"cannot be read \({said}\): delete them") as read:
        open_dataset("Set", str(tmp_path), wanted, True, Maker(error))
    assert read.value.__cause__ is error
    wanted[0].unlink()
    with pytest.raises(DataNotFoundError, match=rf"the download failed: {said}\. ") as fetched:
        open_dataset("Set", str(tmp_path), wanted, True, Maker(error))
    assert fetched.value.__cause__ is error


def test_an_interrupt_is_none_of_its_errors(tmp_path: Path, wanted: list[Path]) -> None:
    def interrupt(fetch: bool) -> NoReturn:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_dataset("Set", str(tmp_path), wanted, True, interrupt)
