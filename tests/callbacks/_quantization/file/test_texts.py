"""The names of classes are those that the user gave, or those of the data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from conftest import ForeignModule, stripes
from lightning.pytorch import LightningDataModule, Trainer
from torch.utils.data import DataLoader, TensorDataset

from lit_compress.callbacks._quantization.file.texts import check_classes, class_names, file_texts
from lit_compress.errors import InvalidArgumentError


class Named(TensorDataset):
    """As torchvision's data sets: it knows the names of its classes."""

    def __init__(self, classes: Any) -> None:
        super().__init__(*stripes(16, 1).tensors)
        self.classes = classes


class Data(LightningDataModule):
    """Offers names of its own, and has a data set with others."""

    def __init__(self, classes: Any) -> None:
        super().__init__()
        self.of_set = classes

    def train_dataloader(self) -> DataLoader:
        return DataLoader(Named(self.of_set), 16)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(Named(self.of_set), 16)


class Offering(Data):
    classes = ("left", "right")


def unknown() -> tuple[int, ...]:
    raise AssertionError("the network need not run for this")


@pytest.fixture
def fitted(make_trainer: Callable[..., Trainer]) -> Callable[[Data], Trainer]:
    def fit(data: Data) -> Trainer:
        trainer = make_trainer(max_epochs=1)
        trainer.fit(ForeignModule(), data)
        return trainer

    return fit


def test_given_names_come_first_then_those_of_the_datamodule(
    fitted: Callable[[Data], Trainer],
) -> None:
    trainer = fitted(Offering("abcd"))
    assert class_names(trainer, ("x", "y"), unknown) == ["x", "y"]
    assert class_names(trainer, (), unknown) == ["left", "right"]


@pytest.mark.parametrize(
    ("classes", "found"),
    [
        (["a", "b", "c", "d"], ["a", "b", "c", "d"]),
        (["a", "b"], []),  # not one for each output
        ([0, 1, 2, 3], []),
        (4, []),
    ],
)
def test_those_of_the_data_set_count_if_there_is_one_for_each_output(
    classes: Any, found: list[str], fitted: Callable[[Data], Trainer]
) -> None:
    assert class_names(fitted(Data(classes)), (), lambda: (16, 4)) == found


@pytest.mark.parametrize("shape", [(16, 3), (16,)])
def test_too_few_or_too_many_names_are_refused(shape: tuple[int, ...]) -> None:
    check_classes((), shape)
    check_classes("abcd", (16, 4, 2))
    with pytest.raises(InvalidArgumentError, match=r"classes has 4 names, .* of shape 16"):
        check_classes("abcd", shape)


def test_a_file_has_them_line_by_line() -> None:
    found = file_texts((3, 8, 9), ["a", "b c"])
    assert found == {"lit_compress.size": "3 8 9", "lit_compress.classes": "a\nb c"}
    assert file_texts((5,), []) == {"lit_compress.size": "5"}
