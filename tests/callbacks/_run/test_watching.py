"""A callback that watches validations has the last one, and only where it needs one."""

from __future__ import annotations

from collections.abc import Callable

from conftest import ForeignModule, loader
from lightning.pytorch import Trainer
from typing_extensions import override

from lit_compress.callbacks._run.watching import WatchesValidation


class Watcher(WatchesValidation):
    def __init__(self, needs: bool) -> None:
        self.needs = needs

    @override
    def watches(self, trainer: Trainer) -> bool:
        return self.needs


def test_only_what_is_needed_is_watched(make_trainer: Callable[..., Trainer]) -> None:
    callbacks = [Watcher(needs=True), Watcher(needs=False)]
    trainer, module = make_trainer(max_epochs=1, callbacks=callbacks), ForeignModule()
    trainer.fit(module, loader(32), loader(32, 1))
    found = [one.last_validation.metrics(trainer, module, "my_acc") for one in callbacks]
    assert list(found[0]) == ["", "net"]
    assert not found[1]


def test_a_further_fit_has_its_own(make_trainer: Callable[..., Trainer]) -> None:
    watcher, module = Watcher(needs=True), ForeignModule()
    for _ in range(2):
        trainer = make_trainer(max_epochs=1, callbacks=[watcher])
        trainer.fit(module, loader(32), loader(32, 1))
        found = watcher.last_validation.metrics(trainer, module, "my_acc")
        assert found[""].metric.value == float(trainer.callback_metrics["my_acc"])
