"""What a step logs, summed up as Lightning sums it up."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import ForeignModule
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import LightningModule, Trainer
from torchmetrics import MeanMetric

from lit_compress.errors import ScanError
from lit_compress.sensitivity.logged import HOOKS, LoggedMetrics, plain_hooks, step


class Logs(LightningModule):
    """Logs what it is given."""

    def __init__(self, kind: torch.dtype = torch.float32, **options: Any) -> None:
        super().__init__()
        self.kind = kind
        self.options = options
        self.metric = MeanMetric()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        value = batch[0, 0].to(self.kind)
        self.log("value", value, **self.options)
        self.metric(value)
        self.log_dict({"metric": self.metric, "index": float(batch_idx)})


def attached(module: LightningModule) -> LightningModule:
    """Return a module with a Trainer, whose hooks move its batches."""
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.strategy.connect(module)
    trainer._data_connector.attach_data(module)
    return module


def tallied(module: LightningModule, batches: list[Any]) -> dict[str, float]:
    attached(module)
    tally = LoggedMetrics(module)
    for index, batch in enumerate(batches):
        step(module, batch, index, tally)
    return tally.scores()


@settings(deadline=None, max_examples=15)
@given(
    st.lists(st.tuples(st.floats(-1e6, 1e6), st.integers(1, 300)), min_size=1, max_size=6),
    st.sampled_from([torch.float32, torch.float64, torch.float16]),
)
def test_means_are_lightnings_to_the_last_bit(
    given: list[tuple[float, int]], dtype: torch.dtype
) -> None:
    batches = [torch.full((size, 2), value, dtype=torch.float64) for value, size in given]
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.validate(
        Logs(dtype), torch.utils.data.DataLoader(batches, batch_size=None), verbose=False
    )
    expected = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert repr(tallied(Logs(dtype), batches)) == repr(
        {n: expected[n] for n in ("value", "index", "metric")}
    )


def test_metrics_start_anew_with_each_tally() -> None:
    module = Logs()
    batches = [torch.full((2, 2), float(number)) for number in range(3)]
    assert tallied(module, batches)["metric"] == 1
    assert tallied(module, batches[:1])["metric"] == 0


def test_a_batch_size_that_is_given_counts() -> None:
    batches = [torch.full((9 - number, 2), float(number)) for number in range(2)]
    assert tallied(Logs(batch_size=3), batches)["value"] == 0.5
    assert tallied(Logs(batch_size=0), batches)["value"] != 0.5  # NaN, as Lightning's


@pytest.mark.parametrize(
    "options", [{"reduce_fx": "sum"}, {"reduce_fx": torch.max}, {"on_epoch": False}]
)
def test_what_cannot_be_summed_up_is_told(options: dict[str, Any]) -> None:
    with pytest.raises(ScanError, match="value is logged with reduce_fx"):
        tallied(Logs(**options), [torch.zeros(2, 2)])


def test_the_modules_own_log_comes_back() -> None:
    module = attached(Logs())
    vars(module)["log"] = mine = object()
    with pytest.raises(IndexError):
        step(module, torch.zeros(0, 0), 0, LoggedMetrics(module))
    assert vars(module)["log"] is mine
    assert "log_dict" not in vars(module)


@pytest.mark.parametrize("hook", HOOKS)
def test_hooks_that_may_measure_are_noticed(hook: str) -> None:
    def own(*_: Any) -> None: ...

    assert plain_hooks(ForeignModule())
    assert not plain_hooks(type("Hooked", (ForeignModule,), {hook: own})())
