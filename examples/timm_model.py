"""Prune and quantise a network of timm (`pip install timm`). Under a minute on a CPU.

    python examples/timm_model.py

Shows a network from a library that lit-compress does not know, in a LightningModule that takes any
network, without pretrained weights and on made images. With your own data set `pretrained=True` and
Schedule(first=0): a trained network may be pruned at once.
"""

import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lit_compress import Schedule
from lit_compress.callbacks import CompressionReport, FilterPruning, PostTrainingQuantization


def squares(count: int, seed: int) -> TensorDataset:
    """Return noisy colour images, and which of the three colours is brightest."""
    random = torch.Generator().manual_seed(seed)
    colour = torch.arange(count) % 3
    images = torch.randn(count, 3, 32, 32, generator=random)
    images[torch.arange(count), colour] += 0.5
    return TensorDataset(images, colour)


class Classifier(L.LightningModule):
    """Trains any network that returns scores."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the scores."""
        return self.net(images)

    def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
        """Return the loss."""
        images, colour = batch
        return nn.functional.cross_entropy(self(images), colour)

    def validation_step(self, batch: list[torch.Tensor], _: int) -> None:
        """Log the accuracy."""
        images, colour = batch
        self.log("val_acc", (self(images).argmax(1) == colour).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam."""
        return torch.optim.Adam(self.parameters(), lr=0.001)


def main() -> None:
    """Train, prune and quantise."""
    import timm

    L.seed_everything(0)
    net = timm.create_model("resnet10t", pretrained=False, num_classes=3)
    train = DataLoader(squares(256, 0), batch_size=32, shuffle=True)
    val = DataLoader(squares(96, 1), batch_size=32)
    trainer = L.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        callbacks=[
            FilterPruning(0.4, of="macs", schedule=Schedule(first=1)),
            PostTrainingQuantization(monitor="val_acc", dirpath="artifact"),
            CompressionReport(),
        ],
    )
    trainer.fit(Classifier(net), train, val)


if __name__ == "__main__":
    main()
