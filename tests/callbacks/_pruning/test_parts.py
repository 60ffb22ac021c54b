"""Callbacks that prune a part of a module each, as the two networks of a GAN."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import loader
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

import lit_compress
from lit_compress import Schedule
from lit_compress.callbacks import FilterPruning
from lit_compress.errors import InvalidArgumentError

MakeTrainer = Callable[..., Trainer]


class Gan(LightningModule):
    """Two networks, two optimizers, and noise of its own for each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator = nn.Sequential(
            nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 64), nn.Tanh()
        )
        self.discriminator = nn.Sequential(
            nn.Conv2d(1, 8, 3, 2, 1),
            nn.BatchNorm2d(8),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Linear(8 * 16, 1),
        )

    def forward(self, noise: Tensor) -> Tensor:
        return self.generator(noise).view(-1, 1, 8, 8)

    def noise(self, batch: Any, number: int) -> Tensor:
        return torch.randn(len(batch[0]), 4, generator=torch.Generator().manual_seed(number))

    def training_step(self, batch: Any, batch_idx: int) -> None:
        of_generator, of_discriminator = self.optimizers()  # type: ignore[misc]
        made = self(self.noise(batch, batch_idx))
        for optimizer, scores, truth in (
            (of_generator, lambda: self.discriminator(made), 1.0),
            (of_discriminator, lambda: self.discriminator(made.detach()), 0.0),
        ):
            optimizer.zero_grad()
            found = scores()
            self.manual_backward(
                binary_cross_entropy_with_logits(found, torch.full_like(found, truth))
            )
            optimizer.step()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("fake", self.discriminator(self(self.noise(batch, batch_idx))).mean())

    def configure_optimizers(self) -> Any:
        return (
            torch.optim.Adam(self.generator.parameters(), 1e-3),
            torch.optim.Adam(self.discriminator.parameters(), 1e-3),
        )


def test_a_share_of_the_parameters_is_one_of_the_part(make_trainer: MakeTrainer) -> None:
    """The total was that of both networks: 80 % of the generator went, not the half asked for."""
    module = Gan()
    before = sum(parameter.numel() for parameter in module.generator.parameters())
    pruner = FilterPruning(0.5, of="parameters", submodule="generator", min_channels=1)
    make_trainer(max_epochs=1, callbacks=[pruner]).fit(module, loader(32), loader(16, 1))
    after = sum(parameter.numel() for parameter in module.generator.parameters())
    assert pruner.reached == pytest.approx(0.5, abs=0.04)
    assert 1 - after / before == pytest.approx(pruner.reached)


def test_a_preview_says_whose_parameters_it_counts() -> None:
    pruner = FilterPruning(0.5, of="parameters", submodule="generator")
    text = str(pruner.describe(Gan(), torch.randn(2, 4)))
    count = sum(parameter.numel() for parameter in Gan().generator.parameters())
    assert f"parameters of generator: {count:,} to " in text


def fit(make_trainer: MakeTrainer, folder: Path, ckpt: Path | None = None) -> tuple[Gan, Trainer]:
    seed_everything(0, verbose=False)
    module = Gan()
    schedule = Schedule(1, 2, shape="linear")
    callbacks = [
        FilterPruning(0.5, schedule=schedule, submodule="generator"),
        FilterPruning(0.5, schedule=schedule, submodule="discriminator"),
        ModelCheckpoint(folder / "kept", "{epoch}", save_top_k=-1),
    ]
    trainer = make_trainer(
        max_epochs=4,
        callbacks=callbacks,
        logger=CSVLogger(folder),
        log_every_n_steps=1,
        enable_checkpointing=True,
    )
    trainer.fit(module, loader(32), loader(16, 1), ckpt_path=ckpt)
    return module, trainer


@pytest.fixture(scope="module")
def gan(tmp_path_factory: pytest.TempPathFactory) -> tuple[Gan, Trainer, Path]:
    folder = tmp_path_factory.mktemp("gan")
    options = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
    return *fit(lambda **given: Trainer(**(options | given)), folder), folder


def test_both_networks_of_a_gan_are_pruned_in_one_fit(gan: Any) -> None:
    """The second callback was refused, since it might have pruned the same weights."""
    module, trainer, _ = gan
    assert [callback.reached for callback in trainer.callbacks[:2]] == [0.5, 0.5]
    assert (module.generator[0].out_features, module.generator[1].num_features) == (8, 8)
    assert (module.discriminator[0].out_channels, module.discriminator[1].num_features) == (4, 4)
    assert module.eval()(torch.randn(3, 4)).shape == (3, 1, 8, 8)
    assert "on_load_checkpoint" not in vars(module)


def test_the_size_is_that_of_the_whole_module(gan: Any) -> None:
    """Each callback logged it with its own part pruned alone."""
    module, trainer, _ = gan
    assert trainer.callback_metrics["compress/parameters"] == sum(
        p.numel() for p in module.parameters()
    )
    assert trainer.callback_metrics["compress/macs"] == 4 * 8 + 8 * 64 + 4 * 9 * 16 + 4 * 16


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_a_resumed_fit_ends_in_the_same_weights(
    epoch: int, gan: Any, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    module, _, folder = gan
    other, _ = fit(make_trainer, tmp_path, folder / "kept" / f"epoch={epoch}.ckpt")
    assert other.generator[1].num_features == 8
    for name, value in module.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_its_checkpoints_load(gan: Any) -> None:
    module, _, folder = gan
    loaded = lit_compress.load_from_checkpoint(Gan, folder / "kept" / "epoch=3.ckpt")
    assert loaded.generator[1].num_features == 8
    assert loaded.discriminator[1].num_features == 4
    for name, value in module.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name


@pytest.mark.parametrize(
    "parts", [("generator", "generator"), ("generator", None), ("generator", "generator.0")]
)
def test_parts_that_overlap_are_refused(
    parts: tuple[str, str | None], make_trainer: MakeTrainer
) -> None:
    callbacks = [
        FilterPruning(0.5, submodule=part, min_channels=n + 1) for n, part in enumerate(parts)
    ]
    with pytest.raises(InvalidArgumentError, match="a part of its own for each by submodule"):
        make_trainer(callbacks=callbacks).fit(Gan(), loader(32), loader(16, 1))
