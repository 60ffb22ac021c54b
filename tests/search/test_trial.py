"""One trial: where it writes, what it notes, and how it ends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lit_compress.search._hopeless import StopHopeless
from lit_compress.search.space import Space
from lit_compress.search.trial import ARTIFACT, HOST, FailedTrial, TooMany, TrialRunner

from .told import Told, optuna, settings, study


def runner(folder: Path, fits: Told, **given: Any) -> TrialRunner:
    search = settings(folder, **given)
    return TrialRunner(search, Space.of(fits.config, search.ranges), fits)


def raising(error: BaseException) -> Callable[[int], None]:
    def trouble(_: int) -> None:
        raise error

    return trouble


def test_a_trial_writes_into_its_folder_and_prints_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trial = study().ask()
    capsys.readouterr()
    values = runner(tmp_path, Told())(trial)
    folder = tmp_path / "trials" / "00000"
    assert "width" in (folder / "fit.log").read_text()
    assert capsys.readouterr() == ("", "")
    assert trial.user_attrs[ARTIFACT] == str(folder / "artifact")
    assert trial.user_attrs[HOST]
    width, share = trial.params["model.width"], trial.params["callbacks.FilterPruning.target"]
    assert values == (1 - share / width, round(100 * width * (1 - share)))


def test_a_fit_that_fails_says_why() -> None:
    trial = study().ask()
    with pytest.raises(FailedTrial, match="out of memory"):
        runner(Path("x"), Told(raising(RuntimeError("out of memory"))))(trial)
    assert trial.user_attrs["reason"] == "out of memory"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def interrupted() -> SystemExit:
    """Return what Lightning raises after Ctrl-C."""
    stop = SystemExit(1)
    stop.__context__ = KeyboardInterrupt()
    return stop


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (interrupted(), KeyboardInterrupt),
        (SystemExit(143), SystemExit),
        (optuna.TrialPruned(), optuna.TrialPruned),
    ],
)
def test_a_fit_that_is_stopped_has_not_failed(
    error: BaseException, expected: type[BaseException]
) -> None:
    trial = study().ask()
    with pytest.raises(expected):
        runner(Path("x"), Told(raising(error)))(trial)
    assert "reason" not in trial.user_attrs


def test_one_worker_too_many_does_not_fit(tmp_path: Path) -> None:
    """Two workers asked for the last trial at the same moment, and the study had one more."""
    made, fits = study(), Told()
    trials = [made.ask(), made.ask()]
    run = runner(tmp_path, fits, trials=1)
    with pytest.raises(TooMany):
        run(trials[1])
    assert not fits.ran
    run(trials[0])


@pytest.mark.parametrize("stop", [True, False])
def test_hopeless_trials_are_stopped_where_the_search_says_so(stop: bool, tmp_path: Path) -> None:
    class Noted(Told):
        def run(self, config: Path, callbacks: Any) -> None:
            assert [type(one) for one in callbacks] == [StopHopeless] * stop
            super().run(config, callbacks)

    runner(tmp_path, Noted(), stop=stop)(study().ask())
