"""The int8 file takes at most the share of the dense one's time that was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ForeignModule
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from lit_compress import Schedule
from lit_compress.artifact import read_card
from lit_compress.callbacks import BlockPruning, FilterPruning, PostTrainingQuantization
from lit_compress.callbacks._budget.latency_budget import (
    TRIES,
    USED,
    Stopwatch,
    Timed,
    _search,
)
from lit_compress.errors import InvalidArgumentError
from lit_compress.export.onnx import write_onnx
from lit_compress.layer_times import Layer, LayerTimes
from lit_compress.quantization import quantize

from .small import Wide, fit

pytestmark = pytest.mark.usefixtures("no_trial_conversion")


@pytest.fixture
def bytes_as_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that takes a second for each byte of a file, and for each weight of a layer."""

    def time(watch: Stopwatch, file: bytes) -> Timed:
        ratio = len(file) / len(watch._dense)
        return Timed(ratio, (ratio, ratio))

    def seconds(times: LayerTimes, layers: Sequence[Layer]) -> list[float]:
        return [float(layer.inputs * layer.outputs) for layer in layers]

    monkeypatch.setattr(Stopwatch, "time", time)
    monkeypatch.setattr(LayerTimes, "seconds", seconds)


@pytest.mark.usefixtures("bytes_as_time")
def test_the_file_is_within_the_budget(tmp_path: Path) -> None:
    pruning = FilterPruning(0.4, of="latency", schedule=Schedule(last=1))
    writing = PostTrainingQuantization(dirpath=str(tmp_path / "a"))
    fit(Wide(), tmp_path, pruning, writing)
    dense = PostTrainingQuantization(dirpath=str(tmp_path / "dense"))
    fit(Wide(), tmp_path, dense)
    sizes = [(tmp_path / name / "model.onnx").stat().st_size for name in ("a", "dense")]
    card = read_card(tmp_path / "a").pruning[0]
    assert card["latency"]["ratio"] == pytest.approx(sizes[0] / sizes[1], abs=0.01)
    assert USED * 0.6 <= card["latency"]["ratio"] <= card["latency"]["allowed"] == 0.6
    assert card["of"] == "macs"
    assert card["reached"] == pytest.approx(card["target"], abs=0.05)


class Residual(ForeignModule):
    """A network with two blocks that can be removed."""

    def __init__(self) -> None:
        super().__init__()
        blocks = [Block(), Block()]
        last = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(40, 4)]
        self.net = nn.Sequential(nn.Conv2d(1, 40, 3, padding=1), nn.ReLU(), *blocks, *last)


class Block(nn.Module):
    """Adds two convolutions to its input."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(40, 40, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum."""
        y: Tensor = x + self.second(self.first(x).relu())
        return y


@pytest.mark.usefixtures("bytes_as_time")
def test_after_blocks_the_dense_file_is_still_that_of_the_whole_network(tmp_path: Path) -> None:
    """The network without its blocks was taken for the dense one, so twice as much was removed."""
    blocks = BlockPruning(0.5, schedule=Schedule(first=0, last=0))
    pruning = FilterPruning(0.6, of="latency", schedule=Schedule(first=1, last=1))
    writing = PostTrainingQuantization(dirpath=str(tmp_path / "a"))
    fit(Residual(), tmp_path, blocks, pruning, writing)
    dense = PostTrainingQuantization(dirpath=str(tmp_path / "dense"))
    fit(Residual(), tmp_path, dense)
    sizes = [(tmp_path / name / "model.onnx").stat().st_size for name in ("a", "dense")]
    found = read_card(tmp_path / "a").pruning[1]["latency"]
    assert found["ratio"] == pytest.approx(sizes[0] / sizes[1], abs=0.01)
    assert USED * 0.4 <= found["ratio"] <= 0.4


def test_a_network_that_is_fast_enough_loses_nothing() -> None:
    found = _search(lambda share: 1.0, lambda share: Timed(0.5, (0.5, 0.5)), 0.6, start=0.5)
    assert found.share == 0
    assert found.timed.ratio == 0.5


@pytest.mark.usefixtures("bytes_as_time")
def test_a_budget_below_the_floor_is_refused_before_the_training(tmp_path: Path) -> None:
    module = Wide()
    before = [p.clone() for p in module.parameters()]
    pruning = FilterPruning(0.95, of="latency", schedule=Schedule(last=1), min_channels=20)
    writing = PostTrainingQuantization(dirpath=str(tmp_path / "a"))
    with pytest.raises(InvalidArgumentError, match=r"smallest network.* takes .* %.*at most 0\.\d"):
        fit(module, tmp_path, pruning, writing)
    assert all(map(torch.equal, before, module.parameters()))


def test_nothing_writes_an_int8_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"of: latency .* add the PostTraining"):
        fit(Wide(), tmp_path, FilterPruning(0.4, of="latency", schedule=Schedule(last=1)))


@pytest.mark.usefixtures("bytes_as_time")
@pytest.mark.filterwarnings("ignore:.*the run ended before its schedule did")
@pytest.mark.filterwarnings("ignore:.*the int8 file takes 61")
@pytest.mark.filterwarnings("ignore:The trained float weights")
def test_a_resumed_fit_keeps_what_was_found(tmp_path: Path) -> None:
    def callbacks(name: str) -> list[Any]:
        pruning = FilterPruning(
            0.4, of="latency", schedule=Schedule(first=0, last=2), round_to="auto"
        )
        return [pruning, PostTrainingQuantization(dirpath=str(tmp_path / name))]

    torch.manual_seed(0)
    module = Wide()
    first = callbacks("first")
    trainer = fit(module, tmp_path, *first, epochs=4, max_steps=4)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    second = callbacks("second")
    resumed = Wide()
    fit(resumed, tmp_path, *second, epochs=4, ckpt_path=str(tmp_path / "last.ckpt"))
    assert second[0].selector.target == first[0].selector.target
    assert second[0].selector.round_to == first[0].selector.round_to
    assert read_card(tmp_path / "second").pruning[0]["reached"] == pytest.approx(
        float(first[0].selector.target), abs=0.05
    )


@pytest.mark.usefixtures("bytes_as_time")
def test_a_file_that_takes_longer_at_the_end_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pruning = FilterPruning(0.4, of="latency", schedule=Schedule(last=1))
    writing = PostTrainingQuantization(dirpath=str(tmp_path / "a"))
    found = Stopwatch.time

    def slower(watch: Stopwatch, file: bytes) -> Timed:
        times = found(watch, file)
        written = (tmp_path / "a").parent.glob("**/replay.npz")
        return Timed(0.9, (0.88, 0.92)) if any(written) else times

    monkeypatch.setattr(Stopwatch, "time", slower)
    with pytest.warns(UserWarning, match=r"takes 90\.0 % .* of at most 60\.0 %"):
        fit(Wide(), tmp_path, pruning, writing)
    assert read_card(tmp_path / "a").pruning[0]["latency"]["ratio"] == 0.9


@pytest.mark.parametrize("target", [0.0, 1.0, -0.1, 1.5])
def test_targets_that_are_no_share(target: float) -> None:
    with pytest.raises(InvalidArgumentError, match="target"):
        FilterPruning(target, of="latency")


@given(
    st.floats(0.05, 0.95),
    st.floats(0.0, 0.5),
    st.floats(0.3, 3.0),
    st.floats(0.5, 2.0),
)
def test_any_falling_time_is_met(allowed: float, floor: float, power: float, bend: float) -> None:
    """Layers tell the order of the times, and not how long a file takes."""

    def ratio(share: Fraction) -> float:
        return floor + (1 - floor) * (1 - float(share)) ** power

    def seconds(share: Fraction) -> float:
        return ratio(share) ** bend

    def timed(share: Fraction) -> Timed:
        return Timed(ratio(share), (ratio(share), ratio(share)))

    smallest = ratio(Fraction(9995, 10000))
    if smallest > allowed:
        with pytest.raises(InvalidArgumentError, match="smallest"):
            _search(seconds, timed, allowed)
        return
    found = _search(seconds, timed, allowed)
    assert found.timed.ratio <= allowed
    assert found.timed.ratio >= USED * allowed or smallest >= USED * allowed
    assert found.tries <= TRIES + 1


def test_a_file_takes_as_long_as_itself_and_longer_than_a_smaller_one(tmp_path: Path) -> None:
    files = []
    for width in (256, 16):
        net = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 64)).eval()
        images = torch.rand(8, 64)
        write_onnx(quantize(net, [images], images), images, tmp_path / "model.onnx")
        files.append((tmp_path / "model.onnx").read_bytes())
    watch = Stopwatch(files[0], batch=64)
    same, smaller = (watch.time(file) for file in files)
    assert 0.8 < same.ratio < 1.25
    assert smaller.ratio < same.ratio
    assert smaller.interval[0] <= smaller.ratio <= smaller.interval[1]
