"""The verb ``doctor`` on the command line: lines, JSON and the exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lit_compress.cli import main
from lit_compress.doctor import versions

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.usefixtures("shallow"),
]
WORDS = ["--model=ShuffleNetV2", "--model.in_channels=1", "--model.width=0.5"]
WORDS += ["--data=DigitsDataModule", "--trainer.accelerator=cpu", "--trainer.max_epochs=4"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_fit_without_a_fault_ends_with_zero(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*WORDS, "--trainer.callbacks+=FilterPruning", "--trainer.callbacks.target=0.3"]
    assert main(["doctor", *words, "--monitor=val_acc"]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert all(line.startswith("fine ") for line in lines[:-1]), "\n".join(lines)
    assert lines[-1] == f"0 errors, 0 warnings, {len(lines) - 1} fine"
    assert list(tmp_path.iterdir()) == []


def test_an_error_ends_with_one_and_is_in_the_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*WORDS, "--trainer.callbacks+=FilterPruning", "--trainer.callbacks.target=0.3"]
    words += ["--trainer.callbacks.exclude=[heads]", "--json=found.json"]
    assert main(["doctor", *words]) == 1
    content = json.loads(Path("found.json").read_text())
    assert not content["ok"]
    (error,) = [one for one in content["findings"] if one["verdict"] == "error"]
    assert error["question"] == "FilterPruning"
    assert f"error    FilterPruning: {error['found']}" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["found.json"]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--trainer.callbacks+=FilterPruning", "--trainer.callbacks.target=3"], "target"),
        (["--trainer.min_epoch_s=3"], "min_epoch_s"),
        (["--ckpt_path=none.ckpt"], "none.ckpt"),
    ],
)
def test_a_run_that_cannot_be_built_is_an_answer(
    words: list[str], found: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", *WORDS, *words, "--json", "-"]) == 1
    content = json.loads(capsys.readouterr().out)
    (error,) = [one for one in content["findings"] if one["verdict"] == "error"]
    assert error["question"] in ("configuration", "set-up")
    assert found in error["found"] + error["remedy"]


def test_malware_is_named_before_it_is_imported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = versions.version
    fake = lambda name: "2.6.3" if name == "lightning" else real(name)  # noqa: E731
    monkeypatch.setattr(versions, "version", fake)
    monkeypatch.setitem(__import__("sys").modules, "lit_compress.cli_lightning", None)
    assert main(["doctor", *WORDS]) == 1
    assert capsys.readouterr().out.startswith("error    versions: lightning 2.6.3 is malware")
