"""Compress with a plain Trainer: your module, your loaders, three callbacks. 30 s on a CPU.

    python examples/plain_trainer.py

Shows that nothing of lit-compress is in the module: a convolutional network and made images of
stripes in four directions. Filters that make half of the multiply-accumulates are removed; the int8
file is written to ./artifact and classifies a batch without torch.
"""

import lightning as L
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lit_compress import Schedule, load
from lit_compress.callbacks import CompressionReport, FilterPruning, PostTrainingQuantization


def stripes(count: int, seed: int) -> TensorDataset:
    """Return noisy images of 16 x 16 pixels with stripes in four directions, and the directions."""
    random = torch.Generator().manual_seed(seed)
    direction = torch.arange(count) % 4
    row, column = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    waves = torch.sin(torch.stack([row, column, row + column, row - column]))
    noise = torch.randn(count, 16, 16, generator=random)
    return TensorDataset((waves[direction] + 0.5 * noise)[:, None], direction)


class StripesNet(L.LightningModule):
    """A module as you would write it for any Trainer."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.block = nn.Sequential(
            nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 1)
        )
        self.head = nn.Linear(16, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the scores of the four directions."""
        features = self.features(images)
        features = torch.relu(features + self.block(features))  # ties two layers together
        return self.head(features.mean((2, 3)))

    def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
        """Return the loss."""
        images, direction = batch
        return nn.functional.cross_entropy(self(images), direction)

    def validation_step(self, batch: list[torch.Tensor], _: int) -> None:
        """Log the accuracy."""
        images, direction = batch
        self.log("val_acc", (self(images).argmax(1) == direction).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam."""
        return torch.optim.Adam(self.parameters(), lr=0.01)


def main() -> None:
    """Train, prune, quantise, and run the file."""
    L.seed_everything(0)
    train = DataLoader(stripes(512, 0), batch_size=32, shuffle=True)
    val = DataLoader(stripes(256, 1), batch_size=64)
    quantizer = PostTrainingQuantization(monitor="val_acc", dirpath="artifact")
    trainer = L.Trainer(
        max_epochs=6,
        accelerator="cpu",
        logger=False,
        callbacks=[
            FilterPruning(0.5, of="macs", schedule=Schedule(first=2)),
            quantizer,
            CompressionReport(),
        ],
    )
    trainer.fit(StripesNet(), train, val)

    net = load(quantizer.path)  # needs numpy and onnxruntime, not torch
    images, direction = stripes(8, 2).tensors
    print("directions:", direction.tolist())
    print("the file:  ", net(images.numpy().astype(np.float32)).argmax(1).tolist())


if __name__ == "__main__":
    main()
