from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import ForeignModule, loader
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lit_compress.errors import InvalidArgumentError
from lit_compress.evaluation.example_inputs import ENOUGH, ExampleInputs, find_example_inputs
from lit_compress.measure.cost import forward_arguments

MakeTrainer = Callable[..., Trainer]


class Find(Callback):
    """Looks for an example when the training starts, as FilterPruning does, and calls it."""

    def __init__(self, submodule: str | None = None) -> None:
        self.submodule = submodule
        self.found: ExampleInputs | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.found = find_example_inputs(trainer, pl_module, self.submodule)
        args, kwargs = forward_arguments(self.found.inputs)
        pl_module.get_submodule(self.found.submodule)(*args, **kwargs)


@pytest.fixture
def find(make_trainer: MakeTrainer) -> Callable[..., ExampleInputs]:
    def found(
        module: LightningModule, submodule: str | None = None, data: Any = None, **options: Any
    ) -> ExampleInputs:
        callback = Find(submodule)
        options = {"max_epochs": 1, "limit_train_batches": 1, "limit_val_batches": 1} | options
        trainer = make_trainer(callbacks=[callback], **options)
        loaders = (loader(), loader(32, 1)) if data is None else data
        if isinstance(loaders, LightningDataModule):
            trainer.fit(module, datamodule=loaders)
        else:
            trainer.fit(module, *loaders)
        assert callback.found is not None
        return callback.found

    return found


def first(count: int = ENOUGH) -> Tensor:
    return next(iter(loader(32, 1)))[0][:count]


class Two(ForeignModule):
    """Takes two arguments, in the way that a subclass calls it."""

    def forward(self, image: Tensor, scale: Tensor | float = 1.0, **options: Any) -> Tensor:
        return self.net(image) * scale + options.get("shift", 0)

    def call(self, images: Tensor) -> Tensor:
        return self(images, torch.ones(len(images), 1))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self.call(batch[0]), batch[1])

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.call(batch[0])


@pytest.mark.parametrize(
    "stated",
    [
        torch.ones(5, 1, 8, 8),
        (torch.ones(5, 1, 8, 8), torch.ones(5, 1)),
        {"image": torch.ones(5, 1, 8, 8), "scale": 2.0},
    ],
)
def test_a_stated_example_is_taken_as_it_is(
    stated: Any, find: Callable[..., ExampleInputs]
) -> None:
    module = Two()
    module.example_input_array = stated
    found = find(module)
    assert found.submodule == ""
    assert type(found.inputs) is type(stated)
    torch.testing.assert_close(found.inputs, stated)


def test_a_stated_example_needs_no_validation(find: Callable[..., ExampleInputs]) -> None:
    module = ForeignModule()
    module.example_input_array = torch.ones(1, 1, 8, 8)
    assert torch.equal(find(module, data=(loader(),)).inputs, torch.ones(1, 1, 8, 8))


def test_the_first_of_a_validation_batch_are_enough(
    foreign: ForeignModule, find: Callable[..., ExampleInputs]
) -> None:
    found = find(foreign)
    assert found.submodule == ""
    assert len(found.inputs) == 1
    assert torch.equal(found.inputs[0], first())


def test_a_batch_of_one_stays_one(
    foreign: ForeignModule, find: Callable[..., ExampleInputs]
) -> None:
    found = find(foreign, data=(loader(), loader(32, 1, batch_size=1)))
    assert torch.equal(found.inputs[0], first(1))


def test_all_arguments_as_long_as_the_batch_are_shortened(
    find: Callable[..., ExampleInputs],
) -> None:
    found = find(Two())
    assert [tuple(value.shape) for value in found.inputs] == [(2, 1, 8, 8), (2, 1)]


class Rows(ForeignModule):
    """Counts on batches of a multiple of eight."""

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.view(8, -1, 1, 8, 8).flatten(0, 1))


def test_a_forward_that_counts_on_the_batch_size_gets_it(
    find: Callable[..., ExampleInputs],
) -> None:
    """Two images of the batch were given to every forward, and this one failed on them."""
    assert torch.equal(find(Rows()).inputs[0], first(16))


class Keywords(Two):
    def call(self, images: Tensor) -> Tensor:
        return self(images, scale=torch.ones(4, 1)[:1], shift=torch.zeros(len(images), 4))


def test_keywords_come_by_name_also_those_that_the_forward_does_not_name(
    find: Callable[..., ExampleInputs],
) -> None:
    found = find(Keywords())
    assert {name: tuple(value.shape) for name, value in found.inputs.items()} == {
        "image": (2, 1, 8, 8),
        "scale": (1, 1),
        "shift": (2, 4),
    }


class Starred(Two):
    def forward(self, *images: Tensor, scale: float = 1.0) -> Tensor:  # type: ignore[override]
        return self.net(sum(images)) * scale

    def call(self, images: Tensor) -> Tensor:
        return self(images, images, scale=2.0)


def test_positions_beside_keywords_that_cannot_be_named_are_refused(
    find: Callable[..., ExampleInputs],
) -> None:
    with pytest.raises(InvalidArgumentError, match="'images', which cannot be given by name"):
        find(Starred())


class NoForward(LightningModule):
    """Its steps call a child; there is no forward."""

    def __init__(self) -> None:
        super().__init__()
        self.small = nn.Linear(4, 4)
        self.body = ForeignModule().net

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self.small(self.body(batch[0])), batch[1])

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.training_step(batch, batch_idx)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def test_without_a_forward_the_child_that_holds_most_weights_is_found(
    find: Callable[..., ExampleInputs],
) -> None:
    found = find(NoForward())
    assert found.submodule == "body"
    assert torch.equal(found.inputs[0], first())


@pytest.mark.parametrize(("name", "shape"), [("small", (2, 4)), ("body.3", (2, 8, 8, 8))])
def test_a_submodule_that_is_named_is_taken_however_small(
    name: str, shape: tuple[int, ...], find: Callable[..., ExampleInputs]
) -> None:
    found = find(NoForward(), name)
    assert found.submodule == name
    assert found.inputs[0].shape == shape


def test_a_named_submodule_goes_before_a_stated_example(find: Callable[..., ExampleInputs]) -> None:
    module = NoForward()
    module.example_input_array = torch.ones(1, 1, 8, 8)
    assert find(module, "body.3").inputs[0].shape == (2, 8, 8, 8)


def test_an_unknown_submodule_is_refused_with_what_there_is(
    find: Callable[..., ExampleInputs],
) -> None:
    with pytest.raises(InvalidArgumentError, match="no module 'head'; its children are: small, b"):
        find(NoForward(), "head")


@pytest.mark.parametrize(
    "options",
    [{"data": (loader(),)}, {"limit_val_batches": 0}, {"submodule": "net", "data": (loader(),)}],
)
def test_without_validation_data_a_training_batch_is_the_example(
    options: dict[str, Any], foreign: ForeignModule, find: Callable[..., ExampleInputs]
) -> None:
    images = next(iter(loader()))[0][:ENOUGH]
    assert torch.equal(find(foreign, **options).inputs[0], images)


class Silent(ForeignModule):
    """Self-supervised modules often have a validation step that does nothing."""

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        pass


class ByHand(Silent):
    """Optimizes by hand, and calls the forward itself, which runs no hooks."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        images, labels = batch["one"] if isinstance(batch, dict) else batch
        optimizer = self.optimizers()
        self.manual_backward(nn.functional.cross_entropy(self.forward(images), labels))
        optimizer.step()


@pytest.mark.parametrize("module", [Silent(), ByHand()], ids=["Silent", "ByHand"])
def test_a_validation_step_that_calls_nothing_means_a_training_batch(
    module: ForeignModule, find: Callable[..., ExampleInputs]
) -> None:
    """Self-supervised tasks were refused: "there is no example of what it takes"."""
    assert torch.equal(find(module).inputs[0], next(iter(loader()))[0][:ENOUGH])


def test_of_several_training_loaders_the_batch_is_a_collection(
    find: Callable[..., ExampleInputs],
) -> None:
    data = ({"one": loader(), "other": loader(32, 1)},)
    assert torch.equal(find(ByHand(), data=data).inputs[0], next(iter(loader()))[0][:ENOUGH])


class Unused(NoForward):
    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return self.small(torch.ones(1, 4)).sum()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.small(torch.ones(1, 4))


def test_validation_that_calls_no_large_child_gives_no_example(
    find: Callable[..., ExampleInputs],
) -> None:
    with pytest.raises(InvalidArgumentError, match="a child with more than half"):
        find(Unused())
    with pytest.raises(InvalidArgumentError, match="no example inputs of body"):
        find(Unused(), "body")


class Doubled(LightningDataModule):
    """Hands its batches on twice as bright, by its own transfer hook."""

    def train_dataloader(self) -> DataLoader:
        return loader()

    def val_dataloader(self) -> list[DataLoader]:
        return [loader(32, 1), loader(8, 2)]

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch[0] * 2, batch[1]


class ManyLoaders(ForeignModule):
    def validation_step(  # type: ignore[override]
        self, batch: tuple[Tensor, Tensor], batch_idx: int, dataloader_idx: int
    ) -> None:
        self(batch[0])


def test_a_datamodules_batch_comes_as_its_hooks_make_it(find: Callable[..., ExampleInputs]) -> None:
    assert torch.equal(find(ManyLoaders(), data=Doubled()).inputs[0], first() * 2)


def test_an_example_is_of_the_precision_of_the_run(
    foreign: ForeignModule, find: Callable[..., ExampleInputs]
) -> None:
    assert find(foreign, precision="bf16-true").inputs[0].dtype == torch.bfloat16


def test_looking_changes_nothing_in_the_module(
    foreign: ForeignModule, make_trainer: MakeTrainer
) -> None:
    class Look(Find):
        def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            state = {n: t.clone() for n, t in pl_module.state_dict().items()}
            attributes, random = dict(vars(pl_module)), torch.get_rng_state()
            super().on_train_start(trainer, pl_module)
            now = pl_module.state_dict()
            pl_module.net[1].load_state_dict(
                {n.removeprefix("net.1."): t for n, t in state.items() if n.startswith("net.1.")}
            )
            assert all(torch.equal(state[n], now[n]) for n in state)
            assert dict(vars(pl_module)) == attributes
            assert torch.equal(torch.get_rng_state(), random)
            assert not any(layer._forward_pre_hooks for layer in pl_module.modules())

    make_trainer(callbacks=[Look()], max_epochs=1).fit(foreign, loader(), loader(32, 1))
