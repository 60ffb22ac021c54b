from collections.abc import Callable

import torch
from conftest import ForeignModule, loader, stripes
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lit_compress.evaluation.export_target import Forward, find_export_target
from lit_compress.evaluation.run_view.copies import clone


def found(make_trainer: Callable[..., Trainer], module: ForeignModule, batches: int = 2):  # noqa: ANN201
    trainer = make_trainer(max_epochs=1)
    trainer.fit(module, loader(), loader(48, 1))
    copy = clone(trainer, module)
    return find_export_target(trainer, copy, None, batches), copy


def test_the_child_that_computes_the_same_is_captured(
    foreign: ForeignModule, make_trainer: Callable[..., Trainer]
) -> None:
    network, copy = found(make_trainer, foreign)
    assert (network.path, network.inner) == ("", "net")
    assert network.captured(copy) is copy.net
    assert network.called(copy) is copy
    images = next(iter(loader(48, 1)))[0]
    assert len(network.inputs) == 2
    assert torch.equal(network.inputs[0], images)


def test_a_forward_that_does_more_is_captured_whole(
    make_trainer: Callable[..., Trainer],
) -> None:
    class Scaled(ForeignModule):
        def forward(self, x: Tensor) -> Tensor:
            return self.net(x) * 2

    network, copy = found(make_trainer, Scaled())
    captured = network.captured(copy)
    assert isinstance(captured, Forward)
    with torch.no_grad():
        assert torch.equal(captured(network.inputs[0]), copy.net(network.inputs[0]) * 2)


class Pair(ForeignModule):
    """Takes a mapping of images and a scale, and a number by name, out of batches of mappings."""

    def forward(self, batch: dict[str, Tensor], *, times: int = 1) -> Tensor:  # type: ignore[override]
        return self.net(batch["image"]) * batch["scale"][:, None] * times

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:  # type: ignore[override]
        return nn.functional.cross_entropy(self(batch, times=2), batch["label"])

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:  # type: ignore[override]
        scores = self(batch, times=2)
        self.log("my_acc", (scores.argmax(-1) == batch["label"]).float().mean())


def mappings(count: int, seed: int) -> DataLoader:
    images, labels = stripes(count, seed).tensors
    rows = [
        {"image": image, "label": label, "scale": torch.tensor(1.0 + index % 3)}
        for index, (image, label) in enumerate(zip(images, labels, strict=True))
    ]
    return DataLoader(rows, batch_size=16)  # type: ignore[arg-type]


def test_inputs_in_mappings_are_found(make_trainer: Callable[..., Trainer]) -> None:
    module = Pair()
    trainer = make_trainer(max_epochs=1)
    trainer.fit(module, mappings(32, 0), mappings(48, 1))
    copy = clone(trainer, module)
    network = find_export_target(trainer, copy, None, 2)
    assert network.signature.names == ("batch_image", "batch_label", "batch_scale")
    batch = next(iter(mappings(48, 1)))
    with torch.no_grad():
        expected = copy(batch, times=2)
        assert torch.equal(network.captured(copy)(*network.inputs[0]), expected)


def test_a_seed_draws_the_batches(
    foreign: ForeignModule, make_trainer: Callable[..., Trainer]
) -> None:
    """Data in the order of its classes would calibrate to the first class."""
    trainer = make_trainer(max_epochs=1)
    trainer.fit(foreign, loader(), loader(64, 1))
    copy = clone(trainer, foreign)
    first, again, other = (
        find_export_target(trainer, copy, None, 2, seed).inputs for seed in (1, 1, 2)
    )
    images = stripes(64, 1).tensors[0]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))  # type: ignore[arg-type]
    assert not torch.equal(first[0], other[0])  # type: ignore[arg-type]
    assert not torch.equal(first[0], images[:16])  # type: ignore[arg-type]
    rows = {tuple(row.flatten().tolist()) for row in images}
    drawn = {tuple(row.flatten().tolist()) for batch in first for row in batch}
    assert len(drawn) == 32
    assert drawn < rows
