"""A LightningModule without any compression in it, and its data: the other examples import it.

    python examples/digits_net.py

The digits are part of scikit-learn (``pip install scikit-learn``); nothing is downloaded.
"""

import lightning as L
import torch
from torch import nn
from torch.nn import functional as F

from lit_compress.datamodules import DigitsDataModule


class DigitsNet(L.LightningModule):
    """Classify digits with three convolutions."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(
            nn.Conv2d(1, width, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.Conv2d(2 * width, 2 * width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(2 * width, 10),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the scores of the ten classes."""
        return self.net(images)

    def training_step(
        self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int
    ) -> torch.Tensor:
        """Return the loss."""
        images, labels = batch
        return F.cross_entropy(self(images), labels)

    def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> None:
        """Log the accuracy."""
        images, labels = batch
        self.log("val_acc", (self(images).argmax(-1) == labels).float().mean())

    def test_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> None:
        """Log the accuracy."""
        images, labels = batch
        self.log("test_acc", (self(images).argmax(-1) == labels).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam."""
        return torch.optim.Adam(self.parameters(), lr=0.005)


if __name__ == "__main__":
    trainer = L.Trainer(accelerator="cpu", max_epochs=3, logger=False)
    trainer.fit(DigitsNet(), DigitsDataModule(batch_size=32))
