"""The end of a fit passes over the validation data once for each file, and opens each file once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from conftest import ForeignModule, loader, stripes
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lit_compress import Schedule
from lit_compress.artifact import read_card
from lit_compress.callbacks import CompressionReport, MagnitudePruning, PostTrainingQuantization
from lit_compress.callbacks._quantization.file.drop import DropSearch

pytestmark = pytest.mark.usefixtures("no_trial_conversion", "noise_of_two_inputs")

#: Batches of the validation data, and their size.
BATCHES, SIZE = 6, 16


class Counting(ForeignModule):
    """Counts the batches that its validation gets after the last one of the fit, in all copies."""

    batches = 0

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        Counting.batches += 1


class Begin(Callback):
    """Starts to count when the training is over."""

    def on_train_end(self, *_: Any) -> None:
        Counting.batches = 0


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    found: list[int] = []
    real = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda *arguments, **more: found.append(0) or real(*arguments, **more),
    )
    return found


@pytest.fixture
def fit(make_trainer: Callable[..., Trainer], tmp_path: Path) -> Callable[..., Any]:
    def run(*callbacks: Callback, val: Any = None, report: bool = False, **options: Any) -> Any:
        folder = tmp_path / "a"
        quantizer = PostTrainingQuantization(
            "my_acc", dirpath=str(folder), calibration_batches=1, **options
        )
        others = [CompressionReport()] if report else []
        trainer = make_trainer(
            max_epochs=3,
            callbacks=[Begin(), *callbacks, quantizer, *others],
            enable_checkpointing=options.get("weights") == "best",
        )
        trainer.fit(Counting(), loader(64), val or loader(BATCHES * SIZE, 1, SIZE))
        return read_card(folder)

    return run


def test_one_pass_measures_the_file(fit: Callable[..., Any], opened: list[int]) -> None:
    """There were two, the first of what the fit had just measured."""
    card = fit()
    assert Counting.batches == BATCHES + 1  # and the one that calibrates
    assert len(opened) == 1
    for name in ("dense", "int8"):
        assert card.variant(name).metric.n == BATCHES * SIZE


def test_one_pass_for_each_file_of_a_search(
    fit: Callable[..., Any], opened: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file that was chosen was opened three times more."""
    monkeypatch.setattr(DropSearch, "_lost", lambda *_: 1.0)
    with pytest.warns(UserWarning, match="the file with the smallest drop was written"):
        card = fit(max_drop=0.0, on_drop="warn")
    tried = card.variant("int8").fidelity.evaluations
    assert tried > 1
    assert Counting.batches == tried * BATCHES + 1
    assert len(opened) == tried


def test_a_report_adds_no_pass(fit: Callable[..., Any], opened: list[int]) -> None:
    """It measured the network before the pruning anew, and opened each file."""
    card = fit(MagnitudePruning(0.5, Schedule(1, shape="one_shot")), report=True)
    assert Counting.batches == BATCHES + 2  # a batch for each callback, to find the network
    assert len(opened) == 2  # int8 and float
    assert [one.name for one in card.variants] == ["dense", "pruned", "pruned onnx", "int8"]
    for name in ("dense", "pruned", "int8"):
        assert card.variant(name).metric.n == BATCHES * SIZE


class Noisy(Dataset[tuple[Tensor, Tensor]]):
    """Data with a random transform: each pass has others."""

    def __init__(self) -> None:
        self.data = stripes(BATCHES * SIZE, 1)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, label = self.data[index]
        return image + 1e-3 * torch.randn_like(image), label


def test_other_data_are_measured_anew(fit: Callable[..., Any]) -> None:
    """Nothing but the images themselves tells that they are others."""
    fit(val=DataLoader(Noisy(), batch_size=SIZE))
    assert Counting.batches == 2 * BATCHES + 1


def test_other_weights_are_measured_anew(fit: Callable[..., Any], tmp_path: Path) -> None:
    best = ModelCheckpoint(tmp_path, monitor="epoch", mode="min", save_top_k=1)  # the first one
    card = fit(best, weights="best")
    assert card.variant("dense").epoch == 1
    assert Counting.batches == 2 * BATCHES + 1
