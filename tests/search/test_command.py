"""The verb ``search`` on the command line, with real fits."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import yaml

from lit_compress.artifact.folder.card import read_card
from lit_compress.cli import main

from .told import optuna, rows

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
FIT = {
    "trainer": {
        "accelerator": "cpu",
        "max_epochs": 2,
        "limit_train_batches": 2,
        "limit_val_batches": 1,
        "logger": False,
        "enable_checkpointing": False,
        "callbacks": [
            {
                "class_path": "FilterPruning",
                "init_args": {"target": 0.4, "schedule": {"first": 0, "last": 0}},
            },
            {"class_path": "CompressionReport", "init_args": {"monitor": "val_acc"}},
        ],
    },
    "model": {"class_path": "faults.small_fit.SmallNet"},
    "data": {"class_path": "faults.small_fit.SameOrder", "init_args": {"batch_size": 64}},
}
SEARCH: dict[str, Any] = {
    "fit": "fit.yaml",
    "objectives": ["val_acc", "bytes"],
    "sampler": "random",
    "trials": 2,
    "ranges": {"model.width": [4, 16], "callbacks.FilterPruning.target": [0.3, 0.6]},
}


def written(folder: Path, **changed: Any) -> str:
    (folder / "fit.yaml").write_text(yaml.safe_dump(FIT))
    (folder / "digits.yaml").write_text(yaml.safe_dump(SEARCH | changed))
    return str(folder / "digits.yaml")


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return the folder of a search of two fits, and what was printed."""
    folder, printed = tmp_path_factory.mktemp("command"), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("sys.stdout", printed)
        patch.setattr("lit_compress.search.worker.can_draw", lambda: False)
        assert main(["search", "--config", written(folder), "--seed", "1"]) == 0
    return folder, printed.getvalue()


def test_a_search_writes_its_front(searched: tuple[Path, str]) -> None:
    folder, printed = searched
    assert printed.splitlines()[0].startswith("study 'digits': maximize val_acc, minimize bytes; 0")
    assert "no picture: pip install 'lit-compress[plots]'" in printed
    storage = f"sqlite:///{folder / 'search' / 'study.db'}"
    trials = optuna.load_study(study_name="digits", storage=storage).trials
    assert [one.state.name for one in trials] == ["COMPLETE"] * 2
    for row in rows(folder / "search"):
        variant = read_card(row["artifact"]).variants[-1]
        assert (variant.metric.value, variant.bytes) == (float(row["val_acc"]), int(row["bytes"]))


def test_a_point_fitted_by_itself_is_the_same_network(
    searched: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    row = rows(searched[0] / "search")[-1]
    config = searched[0] / "search" / row["config"]
    assert main(["fit", f"--config={config}"]) == 0
    (path,) = tmp_path.rglob("card.json")
    again, trial = read_card(path.parent), read_card(row["artifact"])
    assert again.files == trial.files  # SHA-256 of the weights
    assert again.files
    assert again.variants[-1].metric == trial.variants[-1].metric


@pytest.mark.parametrize(
    ("changed", "words", "message"),
    [
        (
            {"ranges": {"model.widht": [4, 16]}},
            [],
            "digits.yaml: ranges: model.widht: model (SmallNet) has no setting 'widht': did you "
            "mean 'width'?",
        ),
        (
            {"ranges": {"callbacks.FilterPruning.target": [0.3, 1.6]}},
            [],
            "callbacks.FilterPruning.target: 1.6 is not possible",
        ),
        ({"objectives": ["val_loss"]}, [], "CompressionReport measures val_acc, not val_loss"),
        ({"fit": "none.yaml"}, [], "none.yaml"),
        ({}, ["--trails=3"], "trails"),
        ({}, ["--trials=0"], "the command line: trials: expected a whole number, 1 or more, got 0"),
        ({}, ["--trials=x"], "search: argument --trials: invalid int value: 'x'"),
        ({}, ["--config=other.yaml"], "--config is given more than once: the configs of the fit"),
        ({}, ["--storage=study.db"], "storage 'study.db' is no address"),
    ],
)
def test_what_is_wrong_is_said_before_the_first_fit(
    changed: dict[str, Any],
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["search", f"--config={written(tmp_path, **changed)}", *words]) == 2
    captured = capsys.readouterr()
    assert message in captured.err.splitlines()[-1]
    assert "trial 0" not in captured.out
    assert not (tmp_path / "search" / "trials").exists()


def test_words_of_the_fit_hold_for_all_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--trainer.devices=2", "--trainer.strategy=ddp"]
    assert main(["search", "--config", written(tmp_path), *words]) == 2
    assert "a trial runs in one process, and the fit has 2" in capsys.readouterr().err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["search", "--help"])
    assert caught.value.code == 0
    assert "--heartbeat S" in capsys.readouterr().out


def test_without_a_config(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search"]) == 2
    assert "search: the following arguments are required: --config" in capsys.readouterr().err
