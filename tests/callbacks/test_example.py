"""What a network takes: stated by it, or seen in its own validation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import ForeignModule, loader, stripes
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lit_compress.callbacks.example import Example, find_example
from lit_compress.errors import InvalidArgumentError

MakeTrainer = Callable[..., Trainer]
IMAGES = stripes(32, 1).tensors[0]


class Look(Callback):
    """Looks for an example when a callback would."""

    def __init__(self, submodule: str | None = None) -> None:
        self.submodule = submodule
        self.found: Example | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        state = torch.get_rng_state()
        self.found = find_example(trainer, pl_module, self.submodule)
        assert torch.equal(torch.get_rng_state(), state)


@pytest.fixture
def find(make_trainer: MakeTrainer) -> Callable[..., Example]:
    """Return the example found in a fit of one batch, with validation data unless told."""

    def look(
        module: LightningModule, submodule: str | None = None, data: Any = None, **options: Any
    ) -> Example:
        callback = Look(submodule)
        trainer = make_trainer(max_steps=1, callbacks=[callback], **options)
        before = dict(vars(module))
        if isinstance(data, LightningDataModule):
            trainer.fit(module, datamodule=data)
        else:
            trainer.fit(module, loader(), loader(32, 1) if data is None else data or None)
        assert callback.found
        assert all(not child._forward_pre_hooks for child in module.modules())
        assert before.keys() <= vars(module).keys()
        return callback.found

    return look


def test_the_first_images_of_validation_are_taken(
    foreign: ForeignModule, find: Callable[..., Example]
) -> None:
    found = find(foreign)
    assert found.submodule == ""
    assert isinstance(found.inputs, tuple)
    assert len(found.inputs) == 1
    assert torch.equal(found.inputs[0], IMAGES[:2])


@pytest.mark.parametrize("kind", ["tensor", "tuple", "mapping"])
def test_a_stated_example_goes_first(
    kind: str, foreign: ForeignModule, find: Callable[..., Example]
) -> None:
    image = torch.rand(3, 1, 8, 8)
    stated = {"tensor": image, "tuple": (image,), "mapping": {"x": image}}[kind]
    foreign.example_input_array = stated
    for data in (None, []):
        found = find(foreign, data=data)
        assert found.submodule == ""
        assert type(found.inputs) is type(stated)
        value = found.inputs["x"] if kind == "mapping" else torch.stack([*found.inputs])
        assert torch.equal(value.view(3, 1, 8, 8), image)


@pytest.mark.parametrize(
    ("precision", "dtype"), [("64-true", torch.float64), ("bf16-true", torch.bfloat16)]
)
@pytest.mark.parametrize("stated", [False, True])
def test_the_example_has_the_precision_of_the_run(
    stated: bool,
    precision: str,
    dtype: torch.dtype,
    foreign: ForeignModule,
    find: Callable[..., Example],
) -> None:
    if stated:
        foreign.example_input_array = IMAGES[:2]
    found = find(foreign, precision=precision)
    image = found.inputs if stated else found.inputs[0]
    assert image.dtype == dtype
    assert foreign.to(dtype)(image).dtype == dtype


class Keywords(ForeignModule):
    """Takes an image, a scale and further options by keyword."""

    def forward(self, x: Tensor, scale: Tensor | None = None, **options: Any) -> Tensor:
        return self.net(x) * (1 if scale is None else scale) + options.get("shift", 0)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self(batch[0], scale=torch.full((len(batch[0]), 1), 2.0), shift=3)


def test_keywords_are_taken_by_name(find: Callable[..., Example]) -> None:
    """Options that a forward gathers with ** used to come back as one argument of that name."""
    module = Keywords()
    found = find(module).inputs
    assert isinstance(found, dict)
    assert found.keys() == {"x", "scale", "shift"}
    assert torch.equal(found["x"], IMAGES[:2])
    assert (found["scale"].tolist(), found["shift"]) == ([[2.0], [2.0]], 3)
    assert torch.equal(module(**found), module.net(IMAGES[:2]) * 2 + 3)


class Positions(ForeignModule):
    """Takes any number of images by position, and a keyword."""

    def forward(self, *images: Tensor, scale: float = 1.0) -> Tensor:
        return self.net(sum(images)) * scale

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self(batch[0], batch[0], scale=2.0)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return self(batch[0]).sum()


def test_positions_beside_keywords_that_have_no_name_are_refused(
    find: Callable[..., Example],
) -> None:
    with pytest.raises(InvalidArgumentError, match=r"forward of Positions .*'images', which"):
        find(Positions())


class Batches(LightningDataModule):
    """Moves and changes its batches by hooks of its own."""

    def train_dataloader(self) -> DataLoader:
        return loader()

    def val_dataloader(self) -> list[DataLoader]:
        return [loader(32, 1), loader(16, 2)]

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return [batch[0] + 5, batch[1]]


def test_a_datamodules_hooks_have_been_called(find: Callable[..., Example]) -> None:
    class TwoLoaders(ForeignModule):
        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int) -> None:  # type: ignore[override]
            self(batch[0])

    assert torch.equal(find(TwoLoaders(), data=Batches()).inputs[0], IMAGES[:2] + 5)


class Child(LightningModule):
    """Has no forward: its steps call a child, and a small one before that."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Conv2d(1, 1, 1)
        self.net = ForeignModule().net

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return self.net(self.scale(batch[0])).sum()

    validation_step = training_step
    configure_optimizers = ForeignModule.configure_optimizers
    lr = 0.0


def test_the_child_that_holds_the_weights_is_found(find: Callable[..., Example]) -> None:
    module = Child()
    found = find(module)
    assert found.submodule == "net"
    assert torch.allclose(found.inputs[0], module.scale(IMAGES[:2]))


def test_a_named_submodule_is_taken_however_small(
    foreign: ForeignModule, find: Callable[..., Example]
) -> None:
    """A part with less than half of the weights used to be told that nothing had called it."""
    foreign.example_input_array = torch.zeros(1, 1, 8, 8)  # not of that part
    found = find(foreign, "net.3")
    assert found.submodule == "net.3"
    assert found.inputs[0].shape == (2, 8, 8, 8)


@pytest.mark.parametrize("submodule", ["other", "net.9", "net.0.weight"])
def test_a_submodule_that_is_not_there_is_refused(
    submodule: str, foreign: ForeignModule, find: Callable[..., Example]
) -> None:
    message = f"ForeignModule has no module '{submodule}'; its children are: net"
    with pytest.raises(InvalidArgumentError, match=message):
        find(foreign, submodule)


def test_a_submodule_that_validation_does_not_call_is_refused(
    foreign: ForeignModule, find: Callable[..., Example]
) -> None:
    foreign.side = nn.Linear(2, 2)
    with pytest.raises(InvalidArgumentError, match=r"no example of what side .* calls side"):
        find(foreign, "side")


@pytest.mark.parametrize("options", [{"data": []}, {"limit_val_batches": 0}])
def test_without_validation_data_an_example_must_be_stated(
    options: dict[str, Any], foreign: ForeignModule, find: Callable[..., Example]
) -> None:
    with pytest.raises(InvalidArgumentError, match=r"what ForeignModule takes: set example_input"):
        find(foreign, **options)


class Structured(ForeignModule):
    """Takes a mapping as its one argument, an image with a table that is no batch."""

    def forward(self, batch: dict[str, Any]) -> Tensor:
        return self.net(batch["image"]) * batch["table"].sum() * batch["scale"]

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return self({"image": batch[0], "table": torch.ones(3), "scale": 2.0}).sum()

    validation_step = training_step


def test_only_what_is_as_long_as_the_batch_is_shortened(find: Callable[..., Example]) -> None:
    (found,) = find(Structured()).inputs
    assert torch.equal(found["image"], IMAGES[:2])
    assert (len(found["table"]), found["scale"]) == (3, 2.0)


class Nested(ForeignModule):
    """Its validation changes its input in place after the call."""

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self(batch[0])
        batch[0].zero_()


def test_the_example_is_a_copy(find: Callable[..., Example]) -> None:
    assert find(Nested()).inputs[0].abs().max() > 0
