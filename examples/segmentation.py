"""Prune and quantise a network that says a class for each pixel. About 25 seconds on a CPU.

    python examples/segmentation.py

Shows a small U-Net on made images (bright discs in noise): skip connections by concatenation are
followed, the outputs keep their size, the metric is the user's own (intersection over union), and
`max_drop` limits what int8 may take from it.
"""

import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lit_compress import Schedule, load
from lit_compress.callbacks import FilterPruning, PostTrainingQuantization

SIDE = 32


def discs(count: int, seed: int) -> TensorDataset:
    """Return noisy images with one bright disc each, and the pixels of the disc."""
    random = torch.Generator().manual_seed(seed)
    centre = torch.rand(count, 2, 1, 1, generator=random) * SIDE
    radius = 4 + 6 * torch.rand(count, 1, 1, generator=random)
    row, column = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    inside = (row - centre[:, 0]) ** 2 + (column - centre[:, 1]) ** 2 < radius**2
    images = inside.float() + 0.5 * torch.randn(inside.shape, generator=random)
    return TensorDataset(images[:, None], inside.long())


def convolutions(inputs: int, outputs: int) -> nn.Sequential:
    """Return a convolution with its norm."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()
    )


class TinyUNet(L.LightningModule):
    """One step down, one step up, one skip connection."""

    def __init__(self) -> None:
        super().__init__()
        self.top = convolutions(1, 16)
        self.bottom = convolutions(16, 32)
        self.up = nn.ConvTranspose2d(32, 16, 2, stride=2)
        self.joined = convolutions(32, 16)
        self.scores = nn.Conv2d(16, 2, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return two scores for each pixel."""
        top = self.top(images)
        bottom = self.bottom(nn.functional.max_pool2d(top, 2))
        return self.scores(self.joined(torch.cat([top, self.up(bottom)], 1)))

    def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
        """Return the loss over all pixels."""
        images, inside = batch
        return nn.functional.cross_entropy(self(images), inside)

    def validation_step(self, batch: list[torch.Tensor], _: int) -> None:
        """Log the intersection over union of the discs."""
        images, inside = batch
        found = self(images).argmax(1)
        self.log("val_iou", (found & inside).sum() / (found | inside).sum())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam."""
        return torch.optim.Adam(self.parameters(), lr=0.01)


def main() -> None:
    """Train, prune, quantise, and segment one image with the file."""
    L.seed_everything(0)
    train = DataLoader(discs(256, 0), batch_size=32, shuffle=True)
    val = DataLoader(discs(96, 1), batch_size=32)
    pruning = FilterPruning(0.5, of="macs", schedule=Schedule(first=1))
    quantizer = PostTrainingQuantization(
        monitor="val_iou", mode="max", max_drop=0.05, dirpath="artifact"
    )
    trainer = L.Trainer(
        max_epochs=4, accelerator="cpu", logger=False, callbacks=[pruning, quantizer]
    )
    module = TinyUNet()
    trainer.fit(module, train, val)

    net = load(quantizer.path)
    images, inside = discs(1, 2).tensors
    found = torch.from_numpy(net(images.numpy())).argmax(1)
    print("val_iou of the file:", net.card.variant("int8").metric.value)
    print("pixels of the disc:", int(inside.sum()), "found:", int((found & inside).sum()))


if __name__ == "__main__":
    main()
