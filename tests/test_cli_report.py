"""The verb ``report``."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from report.cards import full_card

from lit_compress import cli_report
from lit_compress.artifact.folder import card
from lit_compress.cli import main

SCAN = Path(__file__).parent / "golden/files/scan/scan.csv"


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "runs/b/artifact")
    return tmp_path / "runs"


def put(folder: Path, text: str | None = None) -> None:
    folder.mkdir(parents=True)
    (folder / "card.json").write_text(full_card().to_json() if text is None else text)


def changed(**fields: Any) -> str:
    return json.dumps({**json.loads(full_card().to_json()), **fields})


def test_the_page_is_written(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report"]) == 0
    assert capsys.readouterr().out == "written to report.html\n"
    page = Path("report.html").read_text("utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert "b/artifact/card.json" in page
    assert "there is no scan.csv" in page


def test_folder_and_output_can_be_given(runs: Path) -> None:
    put(runs.parent / "others/x")
    assert main(["report", "--runs", "others", "--output=new/page.html"]) == 0
    assert "x/card.json" in Path("new/page.html").read_text("utf-8")


def test_cards_are_in_the_order_of_their_paths(runs: Path) -> None:
    for name in ("c", "a"):
        put(runs / name)
    found, skipped = cli_report._read_cards(runs)
    assert [run.path for run in found] == ["a/card.json", "b/artifact/card.json", "c/card.json"]
    assert [run.number for run in found] == [1, 2, 3]
    assert not skipped


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("{}", "does not follow"),
        (changed(format_version=99), "update lit-compress"),
        (changed(history=[{"epoch": 1, "seconds": 10**400, "parameters": 1}]), "401 digits"),
        (changed(history=[{"epoch": 1, "seconds": 1, "parameters": 1, "metric": 0}])[:-1], "JSON"),
        (
            changed(config={"a": 0}).replace('"a": 0', '"a": ' + "[" * 900 + "]" * 900),
            "nested deeper",
        ),
        (changed().replace("0.97212", "1e999"), "too large for a number"),
    ],
)
def test_a_bad_card_is_named_and_skipped(runs: Path, text: str, reason: str) -> None:
    put(runs / "a", text)
    assert main(["report"]) == 0
    page = Path("report.html").read_text("utf-8")
    assert "Files that were skipped" in page
    assert "<code>a/card.json</code>" in page
    assert reason in page


def test_a_card_that_is_no_text_or_too_large(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(runs / "a")
    (runs / "a/card.json").write_bytes(b"\xff\xfe\x00")
    put(runs / "c", changed(run="x" * (1 << 20)))
    monkeypatch.setattr(card, "CARD_LIMIT", 1 << 20)
    found, skipped = cli_report._read_cards(runs)
    assert len(found) == 1
    assert "is not UTF-8 text" in skipped[0].reason
    assert "larger than 1,048,576 bytes" in skipped[1].reason


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no named pipes")
def test_what_is_no_file_is_passed_over(runs: Path) -> None:
    (runs / "a").mkdir()
    os.mkfifo(runs / "a/card.json")
    (runs / "c/card.json").mkdir(parents=True)
    (runs / "loop").symlink_to(runs)
    found, skipped = cli_report._read_cards(runs)
    assert (len(found), skipped) == (1, [])


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--runs", "empty"], "there is no card.json below empty"),
        (
            ["--runs", "bad"],
            "no card.json below bad can be read; card.json: bad/card.json is not JSON",
        ),
        (["--runs", "nowhere"], "--runs nowhere is not a folder"),
        (["--output", "empty"], "Is a directory"),
        (["--nope"], "report: unrecognized arguments: --nope"),
        (["--runs"], "report: argument --runs: expected one argument"),
    ],
)
def test_an_error_is_one_line(
    runs: Path, words: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("empty").mkdir()
    put(Path("bad"), "nope")
    assert main(["report", *words]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"error: {line}")
    assert printed.err.count("\n") == 1
    assert not printed.out
    assert not Path("report.html").exists()
    assert not [path for path in Path().iterdir() if path.name.endswith(".part")]


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["report", "--help"])
    assert stop.value.code == 0
    assert "--runs DIR" in capsys.readouterr().out


def test_curves_of_a_scan(runs: Path) -> None:
    (runs / "scan").mkdir()
    shutil.copy(SCAN, runs / "scan")
    (runs / "worse").mkdir()
    (runs / "worse/scan.csv").write_text("layer,ratio\nx")
    assert main(["report"]) == 0
    page = Path("report.html").read_text("utf-8")
    assert "Sensitivity: scan/scan.csv" in page
    assert "<td>0.7812</td>" in page  # 0.78125 in the table
    assert "<code>worse/scan.csv</code>" in page
    assert 'id="scan-1-title"' in page
