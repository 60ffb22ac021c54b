"""Workers of a study: what they refuse, run, write and remove."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.pytorch import Trainer

from lit_compress.artifact.folder.card import read_card
from lit_compress.callbacks import CompressionReport
from lit_compress.errors import SearchError
from lit_compress.search.worker import Options, search

from .told import OBJECTIVES, Told, optuna, rows, settings


def opened(storage: Any) -> Any:
    return optuna.load_study(study_name="search", storage=storage)


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Keep studies in memory, draw nothing, collect nothing: each takes half a second or more."""
    storage = optuna.storages.InMemoryStorage()
    monkeypatch.setattr("lit_compress.search.worker.open_storage", lambda *_: storage)
    monkeypatch.setattr("lit_compress.search.worker.can_draw", lambda: False)
    monkeypatch.setattr("gc.collect", lambda *_: 0)
    return storage


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return the folder of a study of six trials, of which one failed, and what was printed."""
    folder = tmp_path_factory.mktemp("searched")
    fits = Told()

    def third_fails(_: int) -> None:
        if len(fits.ran) == 3:
            raise RuntimeError("out of memory")

    fits.trouble = third_fails
    with pytest.MonkeyPatch.context() as patch:
        printed = io.StringIO()
        patch.setattr("sys.stdout", printed)
        patch.setattr("gc.collect", lambda *_: 0)
        search(settings(folder), fits, Options(seed=0))
    return folder, printed.getvalue()


def test_the_front_is_what_no_other_trial_surpasses(searched: tuple[Path, str]) -> None:
    folder, _ = searched
    trials = opened(f"sqlite:///{folder / 'study.db'}").trials
    ended = [one for one in trials if one.state.name == "COMPLETE"]
    best = [
        one.number
        for one in ended
        if not any(
            a.values[0] >= one.values[0] and a.values[1] <= one.values[1] and a.values != one.values
            for a in ended
        )
    ]
    found = rows(folder)
    assert sorted(int(row["trial"]) for row in found) == best
    accuracies = [float(row["val_acc"]) for row in found]
    assert accuracies == sorted(accuracies, reverse=True)
    for row in found:
        content = yaml.safe_load((folder / row["config"]).read_text())
        width = content["model"]["init_args"]["width"]
        share = content["trainer"]["callbacks"][0]["init_args"]["target"]
        assert row["model.width"] == str(width)
        assert float(row["val_acc"]) == 1 - share / width
        assert content["trainer"]["default_root_dir"] is None


def test_artefacts_of_the_front_are_kept_and_cards_of_all(searched: tuple[Path, str]) -> None:
    folder, _ = searched
    front = {int(row["trial"]) for row in rows(folder)}
    for one in opened(f"sqlite:///{folder / 'study.db'}").trials:
        place = folder / "trials" / f"{one.number:05}"
        if one.state.name == "FAIL":
            assert [path.name for path in place.iterdir()] == ["fit.log"]
            continue
        assert read_card(place / "artifact").variants[-1].metric.value == one.values[0]
        assert (place / "artifact" / "weights").is_file() is (one.number in front)
    names = {path.name for path in (folder / "front").iterdir()}
    assert names == {f"trial-{number:05}.yaml" for number in front}


def test_what_is_printed(searched: tuple[Path, str]) -> None:
    folder, printed = searched
    lines = printed.splitlines()
    assert lines[0] == "study 'search': maximize val_acc, minimize bytes; 0 of 6 trials are there"
    assert lines[1].startswith("a trial is stopped once 3 finished trials with no more parameters")
    log = folder / "trials" / "00002" / "fit.log"
    assert lines[4] == f"trial 2 failed: out of memory (see {log})"
    assert "5 trials ended, 0 were stopped early, 1 failed; the front has" in printed
    assert f"written to {folder / 'front.csv'}" in lines


def test_the_picture(searched: tuple[Path, str]) -> None:
    pytest.importorskip("matplotlib")
    assert (searched[0] / "front.png").stat().st_size > 1000


def test_the_same_command_goes_on(tmp_path: Path, memory: Any) -> None:
    first, second = Told(), Told()
    search(settings(tmp_path, trials=2), first)
    search(settings(tmp_path, trials=2), second)
    assert (len(first.ran), second.ran) == (2, [])
    search(settings(tmp_path, trials=3), second)
    assert len(second.ran) == 1
    assert [one.number for one in opened(memory).trials] == [0, 1, 2]


def test_the_front_of_one_objective_is_one_trial(tmp_path: Path, memory: Any) -> None:
    one = replace(settings(tmp_path, trials=4), objectives=OBJECTIVES[:1])
    (point,) = search(one, Told())
    assert point.values[0] == max(trial.values[0] for trial in opened(memory).trials)


def test_three_failures_in_a_row_end_a_worker(tmp_path: Path, memory: Any) -> None:
    fits = Told()

    def fails(_: int) -> None:
        raise RuntimeError("no such data")

    fits.trouble = fails
    with pytest.raises(SearchError, match="3 trials in a row failed; the last one: no such data"):
        search(settings(tmp_path, trials=9), fits)
    assert len(fits.ran) == 3


def test_ctrl_c_ends_a_worker_and_its_trial_is_not_counted(tmp_path: Path, memory: Any) -> None:
    fits = Told()

    def stops(_: int) -> None:
        raise KeyboardInterrupt

    fits.trouble = stops
    with pytest.raises(KeyboardInterrupt):
        search(settings(tmp_path, trials=1), fits)
    again = Told()
    search(settings(tmp_path, trials=1), again)
    assert len(again.ran) == 1
    assert [one.state.name for one in opened(memory).trials] == ["FAIL", "COMPLETE"]


def test_a_killed_trial_of_a_journal_is_run_again_by_its_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lit_compress.search.worker.can_draw", lambda: False)
    address, fits = f"journal:{tmp_path / 'study.log'}", Told()

    def killed(_: int) -> None:
        raise SystemExit(137)

    fits.trouble = killed
    given = settings(tmp_path, trials=2, storage=address)
    with pytest.raises(SystemExit):
        search(given, fits)
    fits.trouble = lambda _: None
    capsys.readouterr()
    search(given, fits)
    printed = capsys.readouterr().out
    assert "a journal file has no heartbeat in Optuna" in printed
    assert "trials 0 run at other workers; if a worker was killed, the same command with" in printed
    search(given, fits, Options(again=(0,)))
    assert (len(fits.ran), fits.ran[0]) == (3, fits.ran[2])


def test_a_trial_whose_heartbeat_stopped_is_run_again(tmp_path: Path, memory: Any) -> None:
    """A laptop slept: its trial was another worker's before it ended, and the worker broke off."""
    fits = Told()

    def taken_for_killed(_: int) -> None:
        if len(fits.ran) == 1:
            opened(memory).tell(0, state=optuna.trial.TrialState.FAIL)

    fits.trouble = taken_for_killed
    search(settings(tmp_path, trials=1), fits)
    assert [one.state.name for one in opened(memory).trials] == ["FAIL", "COMPLETE"]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("seed_everything",), None, "seed_everything of the fit is None: give a number"),
        (("seed_everything",), True, "seed_everything of the fit is True"),
        (("ckpt_path",), "last", "ckpt_path of the fit is given"),
        (("model", "init_args"), {"depth": 3}, "ranges: model.width: .*has no setting 'width'"),
    ],
)
def test_what_cannot_be_searched_fails_before_the_first_trial(
    path: tuple[str, ...], value: Any, message: str, tmp_path: Path
) -> None:
    fits = Told()
    node: Any = fits.config
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    with pytest.raises(SearchError, match=rf"search\.yaml: {message}"):
        search(settings(tmp_path / "new"), fits)
    assert not (tmp_path / "new").exists()


def test_a_fit_of_several_processes_is_refused(tmp_path: Path) -> None:
    fits = Told()
    fits.trainer = Trainer(
        accelerator="cpu",
        devices=2,
        logger=False,
        callbacks=[CompressionReport(monitor="val_acc")],
    )
    with pytest.raises(SearchError, match=r"one process, and the fit has 2.*trainer\.devices to 1"):
        search(settings(tmp_path), fits)


def test_another_objective_needs_another_study(tmp_path: Path, memory: Any) -> None:
    search(settings(tmp_path, trials=1), Told())
    other = replace(settings(tmp_path), stop=False)
    with pytest.raises(SearchError, match="stop is True there, and False here"):
        search(other, Told())
