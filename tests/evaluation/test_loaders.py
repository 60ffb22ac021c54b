from collections.abc import Callable, Iterator
from typing import Any

import torch
from conftest import ForeignModule, loader, stripes
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import CombinedLoader
from torch.utils.data import DataLoader, IterableDataset, SubsetRandomSampler

from lit_compress.callbacks import FilterPruning
from lit_compress.evaluation.loaders import (
    Joined,
    copied,
    sampled,
    training_loaders,
    unmoved,
    validation_loaders,
    whole,
)
from lit_compress.evaluation.run_view.copies import clone
from lit_compress.evaluation.validate import validate


def test_generators_are_put_back() -> None:
    generator = torch.Generator().manual_seed(1)
    shuffled = DataLoader(stripes(16, 0), batch_size=4, shuffle=True, generator=generator)
    before = generator.get_state()
    with unmoved([shuffled]):
        first = [labels for _, labels in shuffled]
    assert torch.equal(generator.get_state(), before)
    assert all(map(torch.equal, first, [labels for _, labels in shuffled]))


def test_looks_at_validation_data_leave_the_order_of_training_alone(
    make_trainer: Callable[..., Trainer],
) -> None:
    """With one generator for both loaders, each look drew from it and the order was another."""
    orders = []
    for callbacks in ([], [FilterPruning(0.5)]):
        generator = torch.Generator().manual_seed(1)
        data = DataLoader(stripes(32, 0), batch_size=8, shuffle=True, generator=generator)
        aside = DataLoader(stripes(16, 1), batch_size=8, generator=generator)
        seen: list[torch.Tensor] = []

        class Module(ForeignModule):
            def training_step(
                self, batch: tuple[torch.Tensor, ...], batch_idx: int
            ) -> torch.Tensor:
                seen.append(batch[1].clone())  # noqa: B023 - one list a fit
                return super().training_step(batch, batch_idx)

        make_trainer(callbacks=callbacks).fit(Module(), data, aside)
        orders.append(seen)
    assert all(map(torch.equal, orders[0], orders[1][1:]))  # the first one is the dry run's


def test_loaders_given_to_fit_are_found(make_trainer: Callable[..., Trainer]) -> None:
    trainer, train, val = make_trainer(max_epochs=1), loader(32), loader(16, 1)
    trainer.fit(ForeignModule(), train, val)
    assert training_loaders(trainer) == [train]
    assert validation_loaders(trainer) == [val]


def test_whole_is_in_order_and_leaves_nothing_out() -> None:
    data = stripes(22, 0)
    shuffled = DataLoader(data, batch_size=8, shuffle=True, drop_last=True)
    images = torch.cat([batch[0] for batch in whole(shuffled)])
    assert torch.equal(images, data.tensors[0])
    pairs = list(whole(Joined({"a": shuffled, "b": shuffled}, "min_size")))
    assert torch.equal(torch.cat([pair["b"][0] for pair in pairs]), data.tensors[0])


def test_whole_keeps_a_choice_of_the_users() -> None:
    chosen = DataLoader(stripes(22, 0), batch_size=8, sampler=SubsetRandomSampler([1, 2]))
    assert whole(chosen) is chosen
    batches = [torch.zeros(2)]
    assert whole(batches) is batches


class Joins(ForeignModule):
    """Its validation batch is a dict of batches."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        assert set(batch) == {"a", "b"}
        super().validation_step(batch["a"], batch_idx)


def test_loaders_that_are_validated_in_step_are_one_loader(
    make_trainer: Callable[..., Trainer],
) -> None:
    """Their mode was lost: "You provided multiple val_dataloader"."""
    both = CombinedLoader({"a": loader(32, 1), "b": loader(16, 2)}, "max_size_cycle")
    trainer, module = make_trainer(max_epochs=1), Joins()
    trainer.fit(module, loader(), both)
    (found,) = validation_loaders(trainer)
    assert len(found) == len(list(found)) == 2
    metrics = validate(trainer, clone(trainer, module), [sampled(found, 1, 0)])
    assert set(metrics) == {"my_acc", "my_loss"}


class Stream(IterableDataset):
    def __init__(self) -> None:
        self.numbers = iter(range(4))

    def __iter__(self) -> Iterator[torch.Tensor]:
        return (torch.tensor(number) for number in self.numbers)


def test_a_copy_of_a_stream_leaves_its_place_alone() -> None:
    stream = DataLoader(Stream(), batch_size=2)
    assert len(list(copied(stream))) == 2
    assert len(list(copied(Joined([stream, stream], "min_size")))) == 2
    assert len(list(stream)) == 2
    assert copied(number for number in range(2)) is None
    assert copied(iter(range(2))) is not None
    batches = [torch.zeros(2)]
    assert copied(batches) is batches


class Resumable(DataLoader):
    """Counts the batches that it gave, as loaders do that can go on in the middle of an epoch."""

    taken = 0

    def state_dict(self) -> dict[str, int]:
        return {"taken": self.taken}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.taken = state["taken"]

    def __iter__(self) -> Iterator[Any]:
        for batch in super().__iter__():
            self.taken += 1
            yield batch


def test_a_loader_that_can_resume_is_not_moved(make_trainer: Callable[..., Trainer]) -> None:
    """A dry run took the place at which a resumed fit was to go on, and other batches followed."""
    parts = {"last": {"drop_last": True}, "sampler": {"sampler": SubsetRandomSampler(range(20))}}
    for options in ({}, *parts.values()):
        train = Resumable(stripes(20, 0), batch_size=8, **options)
        trainer = make_trainer(max_epochs=1)
        trainer.fit(ForeignModule(), train)
        before = train.state_dict()
        (aside,) = training_loaders(trainer)
        assert [len(labels) for _, labels in aside] == [len(labels) for _, labels in train][:3]
        train.load_state_dict(before)
        list(aside)
        assert train.state_dict() == before
