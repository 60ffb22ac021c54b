from collections.abc import Callable

import torch
from conftest import ForeignModule, loader, stripes
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from lit_compress.callbacks import FilterPruning
from lit_compress.callbacks.loaders import training_loaders, unmoved, validation_loaders


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
    assert all(map(torch.equal, *orders))


def test_loaders_given_to_fit_are_found(make_trainer: Callable[..., Trainer]) -> None:
    trainer, train, val = make_trainer(max_epochs=1), loader(32), loader(16, 1)
    trainer.fit(ForeignModule(), train, val)
    assert training_loaders(trainer) == [train]
    assert validation_loaders(trainer) == [val]
