"""A network that classifies images, as a LightningModule."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from lit_compress.checkpoints.weights import load_weights
from lit_compress.errors import InvalidArgumentError

#: Arguments that stay out of a checkpoint's hyperparameters: they are not needed to rebuild it.
NOT_SAVED = ("network", "optimizer", "lr_scheduler", "init_from")


def check_counts(in_channels: int, num_classes: int) -> None:
    """Make sure that a classifier can have these numbers of channels and classes.

    Raises:
        InvalidArgumentError: If there are no channels, or fewer than 2 classes.
    """
    if num_classes < 2 or in_channels < 1:
        raise InvalidArgumentError(
            "model.num_classes must be at least 2 and model.in_channels at least 1, got "
            f"{num_classes} and {in_channels}"
        )


class ImageClassifier(LightningModule):
    """Cross-entropy training of a network that turns images into class scores.

    Logs ``train_loss``, ``train_acc``, ``val_loss``, ``val_acc``, ``test_loss`` and ``test_acc``.

    Args:
        network: Takes N x C x H x W floats, returns N x ``num_classes`` scores.
        in_channels: Channels of the images.
        num_classes: Number of classes.
        image_size: Side length of the example image, for the summary.
        optimizer: Given the parameters. Default: the paper's SGD.
        lr_scheduler: Given the optimizer; stepped each epoch. Default: none.
        channels_last: Keep weights in channels-last order, where the CPU is faster with it.
        init_from: Starting weights: a checkpoint or ``.safetensors``; nothing else of it is used.
    """

    #: Smallest image side that the network can take.
    min_image_size = 1

    def __init__(
        self,
        network: nn.Module,
        in_channels: int = 3,
        num_classes: int = 10,
        image_size: int = 32,
        optimizer: OptimizerCallable = lambda params: torch.optim.SGD(
            params, lr=0.01, momentum=0.9, weight_decay=1e-5
        ),
        lr_scheduler: LRSchedulerCallable | None = None,
        channels_last: bool = False,
        init_from: str | None = None,
    ) -> None:
        super().__init__()
        check_counts(in_channels, num_classes)
        self.model = network
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.loss = nn.CrossEntropyLoss()
        accuracy = MulticlassAccuracy(num_classes, average="micro")
        self.train_acc, self.val_acc, self.test_acc = (accuracy.clone() for _ in range(3))
        side = max(image_size, self.min_image_size)
        self.example_input_array = torch.zeros(2, in_channels, side, side)
        if channels_last:
            self.model.to(memory_format=torch.channels_last)
        if init_from is not None:
            load_weights(self, init_from)

    def setup(self, stage: str) -> None:
        """Refuse data that does not fit the network, before anything is trained.

        Raises:
            InvalidArgumentError: If channels, classes or image size do not fit.
        """
        data = getattr(self.trainer, "datamodule", None)
        shape = getattr(data, "image_shape", None)
        if shape is not None:
            self._check_image(*shape)
            self.example_input_array = torch.zeros(2, *shape)
        classes = getattr(data, "num_classes", None)
        if isinstance(classes, int) and classes > self.num_classes:
            raise InvalidArgumentError(
                f"{type(self).__name__} has {self.num_classes} classes, but the data "
                f"{classes}: set model.num_classes to {classes}"
            )

    def forward(self, images: Tensor) -> Tensor:
        """Return the class scores of images, N x ``num_classes``."""
        self._check_image(*images.shape[1:])
        scores: Tensor = self.model(images)
        return scores

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        images, labels = batch
        scores = self(images)
        loss: Tensor = self.loss(scores, labels)
        self.train_acc(scores.detach(), labels)
        self.log("train_loss", loss, prog_bar=True)
        self.log("train_acc", self.train_acc, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Add a batch to the validation loss and accuracy."""
        self._evaluate(batch, "val", self.val_acc)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Add a batch to the test loss and accuracy."""
        self._evaluate(batch, "test", self.test_acc)

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the class probabilities of a batch of images, with or without labels."""
        images = batch[0] if isinstance(batch, (tuple, list)) else batch
        return torch.softmax(self(images), dim=-1)

    def configure_optimizers(self) -> Any:
        """Return the optimizer and its scheduler, as given."""
        optimizer = self.optimizer(self.parameters())
        if self.lr_scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": self.lr_scheduler(optimizer)}

    def _evaluate(self, batch: tuple[Tensor, Tensor], split: str, accuracy: Metric) -> None:
        images, labels = batch
        scores = self(images)
        accuracy(scores, labels)
        self.log(f"{split}_loss", self.loss(scores, labels), sync_dist=True)
        self.log(f"{split}_acc", accuracy, prog_bar=True)

    def _check_image(self, channels: int, height: int, width: int) -> None:
        if channels != self.in_channels:
            raise InvalidArgumentError(
                f"{type(self).__name__} takes images of {self.in_channels} channels, got "
                f"{channels}: set model.in_channels to {channels}"
            )
        if min(height, width) < self.min_image_size:
            raise InvalidArgumentError(
                f"{type(self).__name__} needs images of at least {self.min_image_size} pixels (its "
                f"pooling leaves nothing of smaller ones), got {height} x {width}: set "
                f"data.image_size to {self.min_image_size} or more"
            )
