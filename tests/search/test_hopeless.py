"""Trials that are stopped early, and those that are not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from conftest import ForeignModule, loader
from lightning.pytorch import Callback, Trainer

from lit_compress import Schedule
from lit_compress.callbacks import FilterPruning
from lit_compress.search._hopeless import EPOCHS, SIZE, StopHopeless, rule
from lit_compress.search.objectives import Objective

from .told import TARGET, optuna, study, trial

ACCURACY, LOSS = Objective("my_acc", True), Objective("my_loss", False)
BYTES, MACS = Objective("bytes", False), Objective("macs", False)
#: Parameters of the whole network.
WHOLE = sum(one.numel() for one in ForeignModule().parameters())


def finished(size: Sequence[int], epochs: Sequence[float], **params: float) -> Any:
    """Return a finished trial of a size with the metric after each epoch."""
    by_epoch = {str(epoch): value for epoch, value in enumerate(epochs)}
    return optuna.trial.create_trial(
        state=optuna.trial.TrialState.COMPLETE,
        values=[0.5] * (1 + len(size)),
        params=params,
        distributions={key: optuna.distributions.FloatDistribution(0, 1) for key in params},
        user_attrs={SIZE: list(size), EPOCHS: by_epoch},
    )


def fitted(
    make_trainer: Callable[..., Trainer],
    others: Sequence[Any],
    objectives: Sequence[Objective] = (ACCURACY, BYTES),
    *callbacks: Callback,
    same: Sequence[str] = (),
    module: ForeignModule | None = None,
) -> tuple[StopHopeless, bool]:
    """Fit a trial of a study with others; return its callback, and whether it was stopped."""
    made = study(*others, directions=["minimize"] * len(objectives))
    own = made.ask()
    own.suggest_float(TARGET.key, 0.5, 0.5)
    stop = StopHopeless(own, objectives, same)
    trainer = make_trainer(callbacks=[*callbacks, stop], limit_val_batches=1)
    try:
        trainer.fit(module or ForeignModule(), loader(16), loader(16))
    except optuna.TrialPruned:
        return stop, True
    return stop, False


@pytest.mark.parametrize(
    ("objectives", "others", "stopped"),
    [
        ((ACCURACY, BYTES), [finished([WHOLE], [2, 2])] * 3, True),
        ((ACCURACY, BYTES), [finished([WHOLE], [2, 2])] * 2, False),
        ((ACCURACY, BYTES), [finished([WHOLE + 1], [2, 2])] * 3, False),
        ((ACCURACY, BYTES), [finished([WHOLE], [0, 0])] * 3, False),
        ((ACCURACY, BYTES), [finished([WHOLE], [])] * 3, False),
        ((LOSS, BYTES), [finished([WHOLE], [-1, -1])] * 3, True),
        ((LOSS, BYTES), [finished([WHOLE], [9, 9])] * 3, False),
        ((ACCURACY, MACS), [finished([1], [2, 2])] * 3, False),
    ],
)
def test_which_trials_are_stopped(
    objectives: Sequence[Objective],
    others: Sequence[Any],
    stopped: bool,
    make_trainer: Callable[..., Trainer],
) -> None:
    assert fitted(make_trainer, others, objectives)[1] is stopped


def test_trials_with_other_choices_are_not_compared(make_trainer: Callable[..., Trainer]) -> None:
    """A layer that stays float takes four times the bytes: fewer parameters were no fewer bytes."""
    key = TARGET.key
    other = [finished([WHOLE], [2, 2], **{key: 0.25})] * 3
    alike = [finished([WHOLE], [2, 2], **{key: 0.5})] * 3
    assert not fitted(make_trainer, other, same=[key])[1]
    assert fitted(make_trainer, alike, same=[key])[1]


def test_nothing_is_compared_before_the_last_pruning_step(
    make_trainer: Callable[..., Trainer],
) -> None:
    pruning = FilterPruning(0.5, schedule=Schedule(first=0, last=1))
    module = ForeignModule()
    others = [finished([1], [2, 0, 0])] * 3
    stop, stopped = fitted(make_trainer, others, (ACCURACY, BYTES), pruning, module=module)
    assert not stopped
    assert list(stop.epochs) == ["1", "2"]
    (size,) = stop.trial.user_attrs[SIZE]
    assert size == sum(one.numel() for one in module.parameters()) < WHOLE


def test_one_objective_asks_the_pruner_of_the_study(make_trainer: Callable[..., Trainer]) -> None:
    made = optuna.create_study(
        direction="maximize", pruner=optuna.pruners.ThresholdPruner(lower=2.0)
    )
    stop = StopHopeless(made.ask(), [ACCURACY])
    with pytest.raises(optuna.TrialPruned):
        make_trainer(callbacks=[stop]).fit(ForeignModule(), loader(16), loader(16))
    assert list(made.trials[0].intermediate_values) == [0]


def test_a_network_that_diverged_is_stopped(make_trainer: Callable[..., Trainer]) -> None:
    class Diverged(ForeignModule):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("my_acc", float("nan"))

    stop = StopHopeless(study().ask(), (ACCURACY, BYTES))
    with pytest.raises(optuna.TrialPruned, match="my_acc nan"):
        make_trainer(callbacks=[stop]).fit(Diverged(), loader(16), loader(16))


def test_an_epoch_without_validation_compares_nothing(make_trainer: Callable[..., Trainer]) -> None:
    stop = StopHopeless(study(trial("COMPLETE", [1.0, 1.0])).ask(), (ACCURACY, BYTES))
    trainer = make_trainer(callbacks=[stop], max_epochs=3, check_val_every_n_epoch=2)
    trainer.fit(ForeignModule(), loader(16), loader(16))
    assert list(stop.epochs) == ["1"]


@pytest.mark.parametrize(
    ("objectives", "callbacks", "same", "expected"),
    [
        (
            (ACCURACY, BYTES),
            [],
            [],
            "3 finished trials with no more parameters had a better my",
        ),
        (
            (ACCURACY, BYTES, MACS),
            [FilterPruning(0.5)],
            ["a.skip"],
            "no more parameters and macs, and the same a.skip, had a better",
        ),
        ((ACCURACY, MACS), [], [], "no trial is stopped early, as no callback removes channels"),
        ((ACCURACY, Objective("latency", False)), [], [], "as latency is not known before the end"),
        ((BYTES,), [], [], "as bytes is not known before the end"),
        ((ACCURACY,), [], [], "if its best my_acc is below the median of the others"),
        ((LOSS,), [], [], "if its best my_loss is above the median of the others"),
    ],
)
def test_the_rule_in_words(
    objectives: Sequence[Objective],
    callbacks: list[Callback],
    same: list[str],
    expected: str,
    make_trainer: Callable[..., Trainer],
) -> None:
    assert expected in rule(objectives, make_trainer(callbacks=callbacks), same)
