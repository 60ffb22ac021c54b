"""A fault in a call of the system leaves the old file or the new; `make faults` tries each call."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from faults import writing
from faults.writing import WRITERS, Writer, tried

#: Each so many-th call fails: all calls of all writers take a minute and a half.
STRIDE = 6


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.name)
def test_an_error_leaves_the_old_or_the_new(writer: Writer, tmp_path: Path) -> None:
    found = tried(writer, "error", tmp_path, STRIDE)
    assert found.faults > 2
    assert not found.wrong
    assert not found.parts


def test_a_writer_that_does_not_replace_whole_files_is_found(tmp_path: Path) -> None:
    def write(folder: Path, version: int) -> None:
        with open(folder / "file", "wb") as file:
            file.write(bytes([version] * 10))

    found = tried(Writer("in place", write, lambda f: (f / "file").read_bytes()), "error", tmp_path)
    assert len(found.wrong) == 1  # the write, half of which is done


def test_litter_is_found(tmp_path: Path) -> None:
    def write(folder: Path, version: int) -> None:
        (folder / f"file-{version}").write_bytes(b"")

    found = tried(Writer("litter", write, lambda _: 0), "error", tmp_path)
    assert found.faults
    assert len(found.wrong) == found.faults - 1  # all but that of opening the file


def test_the_script_counts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "get_args", lambda _: ("error",))
    monkeypatch.setattr(writing, "OTHER_DISK", Path("no such folder"))
    monkeypatch.setattr(writing.logging, "disable", lambda: None)
    assert writing.main([next(w for w in WRITERS if w.name == "rule file")]) == 0
    assert re.search(r"\n(\d\d) of \1 left the old or the new", capsys.readouterr().out)
