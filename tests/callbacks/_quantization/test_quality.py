"""What the card and the console say of a file's outputs, against what they are."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ForeignModule, loader
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader, TensorDataset

from lit_compress.artifact import Fidelity, Variant
from lit_compress.artifact.answers import Answers
from lit_compress.artifact.variant import FloatWeight
from lit_compress.callbacks._quantization.quality import (
    ComparedOutput,
    answers_of,
    compare_outputs,
    joined,
    say_float_weights,
    warn_if_far,
)
from lit_compress.quantization import LayerNoise

NOISE = [LayerNoise("a", 30.0, 12.0), LayerNoise("b", 10.0, None)]
LOGITS = np.array([[1.0], [-2.0], [3.0], [-4.0]])


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    trainer = Trainer(
        default_root_dir=tmp_path_factory.mktemp("run"),
        accelerator="cpu",
        max_steps=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(ForeignModule(), loader(16), loader(16, 1))
    return trainer


def data(*tensors: torch.Tensor) -> DataLoader:
    return DataLoader(TensorDataset(*tensors), batch_size=3)


def test_answers_are_found_in_the_labels_of_the_run(trainer: Trainer) -> None:
    inputs = [torch.zeros(16, 1, 8, 8)]
    outputs = [np.zeros((16, 4)), np.zeros((16, 3))]
    assert answers_of(trainer, outputs, inputs) == [Answers("class"), None]


def test_labels_of_several_batches_are_joined(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last batch is smaller, and the first one may hold one class alone."""
    images, labels = torch.zeros(8, 2, 2), torch.tensor([0.0] * 7 + [1.0])
    found = "lit_compress.callbacks._quantization.quality.validation_loaders"
    monkeypatch.setattr(found, lambda _: [data(images, labels)])
    assert answers_of(trainer, [LOGITS], [images]) == [Answers("sign")]


def test_a_sign_that_changes_does_not_agree() -> None:
    """One logit: the card claimed 100 % of 'the same class' where the sign was equal for 57 %."""
    turned = -LOGITS * [[1], [1], [-1], [-1]]
    quality = compare_outputs([compared("a", turned, Answers("sign"))], 4)
    assert (quality.agreement, quality.agreement_on, quality.n) == (0.5, "sign", 4)
    assert quality.replay_db == 200
    regression = compare_outputs([compared("a", LOGITS, None)], 4)
    assert (regression.agreement, regression.agreement_on) == (None, None)
    assert quality.outputs == regression.outputs == ()


def compared(name: str, found: np.ndarray, answers: Answers | None) -> ComparedOutput:
    return ComparedOutput(name, LOGITS, found, LOGITS, LOGITS, answers)


def test_of_several_outputs_the_worst_counts_and_the_first_answers() -> None:
    far = compared("far", LOGITS * 1.1, None)
    near = compared("near", LOGITS * 1.001, Answers("sign"))
    quality = compare_outputs([far, near], 4)
    assert quality.sqnr_db == pytest.approx(20)
    assert (quality.agreement, quality.agreement_on) == (1.0, "sign")
    assert [(o.name, round(o.sqnr_db), o.agreement) for o in quality.outputs] == [
        ("far", 20, None),
        ("near", 60, 1.0),
    ]


def test_outputs_without_a_batch_are_those_of_the_first_one() -> None:
    anchors, number = np.arange(6.0), np.array(3.0)
    batches = [[np.zeros((2, 5)), anchors, number], [np.ones((1, 5)), anchors, number]]
    found = joined(batches, 2)
    assert [array.shape for array in found] == [(3, 5), (6,), (1,)]


@pytest.mark.parametrize(
    "quality",
    [
        Fidelity(14.0, 1.0, 64),
        Fidelity(30.0, 0.44, 64, agreement_on="class", median_db=30.0),
        Fidelity(30.0, None, 64, median_db=-0.7),
    ],
)
def test_a_file_that_is_far_off_is_warned_of(quality: Fidelity) -> None:
    """30 dB of one faulty image hid that the others had the same class for 44 %."""
    with pytest.warns(UserWarning, match=r"the weight of net\.b has the largest error, 10\.0 dB"):
        warn_if_far(quality, NOISE, "net.")


@pytest.mark.parametrize(
    "quality", [Fidelity(15.0, 0.9, 64, median_db=15.0), Fidelity(15.0, None, 64)]
)
def test_a_file_that_is_near_enough_is_not(quality: Fidelity) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_far(quality, NOISE, "net.")


@pytest.mark.parametrize(
    ("reason", "expected"),
    [("lstm has no int8 form here", pytest.warns), ("left in float by skip or max_drop", None)],
)
def test_float_weights_are_a_warning_unless_they_were_chosen(
    reason: str, expected: Callable[..., Any] | None
) -> None:
    int8 = Variant("int8", 9, 9, int8_share=0.5, float_weights=(FloatWeight("a", 0.5, reason),))
    if expected is not None:
        with expected(UserWarning, match=r"int8: only 50% of the weights are int8; float are a"):
            say_float_weights(int8)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        say_float_weights(int8)
