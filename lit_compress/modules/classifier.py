"""A LightningModule that trains a network to classify images."""

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
from lit_compress.evaluation.data_protocols import HasImageShape, HasNumClasses
from lit_compress.evaluation.trainer_access import datamodule

#: Arguments that are not saved as hyperparameters: a module can be rebuilt without them.
NOT_SAVED = ("network", "optimizer", "lr_scheduler", "init_from")


def check_counts(in_channels: int, num_classes: int) -> None:
    """Check the numbers of channels and classes of a classifier.

    Args:
        in_channels: Number of channels of the images.
        num_classes: Number of classes.

    Raises:
        InvalidArgumentError: If there are no channels, or fewer than 2 classes.
    """
    if num_classes < 2 or in_channels < 1:
        raise InvalidArgumentError(
            "model.num_classes must be at least 2 and model.in_channels at least 1, got "
            f"{num_classes} and {in_channels}"
        )


class ImageClassifier(LightningModule):
    """Trains a network to classify images, with cross-entropy loss.

    Logs ``train_loss``, ``train_acc``, ``val_loss``, ``val_acc``, ``test_loss`` and ``test_acc``.

    Args:
        network: Takes images (float32, N x ``in_channels`` x H x W) and returns class scores
            (N x ``num_classes``).
        in_channels: Number of channels of the images, at least 1.
        num_classes: Number of classes, at least 2.
        image_size: Side length in pixels of the example image for the model summary.
        optimizer: Function that creates the optimizer from the parameters. Default: SGD with
            learning rate 0.01, momentum 0.9 and weight decay 1e-5, as in the paper.
        lr_scheduler: Function that creates a scheduler from the optimizer, stepped each epoch.
            Default: none.
        channels_last: Whether to keep weights in channels-last memory format, which is faster for
            most convolutional networks on a CPU.
        init_from: Checkpoint or ``.safetensors`` file with starting weights; only the weights are
            used. Default: random weights.

    Raises:
        InvalidArgumentError: If an argument is out of its range.
        CheckpointError: If ``init_from`` cannot be read or does not match the network.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from lit_compress.modules import ImageClassifier
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
        >>> module = ImageClassifier(network, in_channels=1, num_classes=4, image_size=8)
        >>> module(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 4])
    """

    #: Smallest side length in pixels that the network can take.
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
        """Check that the datamodule's images and classes suit the network, before any training.

        Args:
            stage: ``fit``, ``validate``, ``test`` or ``predict``.

        Raises:
            InvalidArgumentError: If channels, image size or number of classes do not match.
        """
        data: object = datamodule(self.trainer)
        shape = data.image_shape if isinstance(data, HasImageShape) else None
        if shape is not None:
            self._check_image(*shape)
            self.example_input_array = torch.zeros(2, *shape)
        classes = data.num_classes if isinstance(data, HasNumClasses) else None
        if isinstance(classes, int) and classes > self.num_classes:
            raise InvalidArgumentError(
                f"{type(self).__name__} has {self.num_classes} classes, but the data has "
                f"{classes}: set model.num_classes to {classes}"
            )

    def forward(self, images: Tensor) -> Tensor:
        """Return the class scores of images.

        Args:
            images: float32, N x C x H x W.

        Returns:
            The scores before softmax, N x ``num_classes``.

        Raises:
            InvalidArgumentError: If the images have another number of channels, or are too small.
        """
        self._check_image(*images.shape[1:])
        scores: Tensor = self.model(images)
        return scores

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of a batch, and log it with the accuracy."""
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
        """Return the class probabilities of a batch, N x ``num_classes``; labels are ignored."""
        images = batch[0] if isinstance(batch, (tuple, list)) else batch
        return torch.softmax(self(images), dim=-1)

    def configure_optimizers(self) -> Any:
        """Return the optimizer and scheduler that the constructor's functions create."""
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
        """Refuse images that the network cannot take."""
        if channels != self.in_channels:
            raise InvalidArgumentError(
                f"{type(self).__name__} takes images of {self.in_channels} channels, got "
                f"{channels}: set model.in_channels to {channels}"
            )
        if min(height, width) < self.min_image_size:
            raise InvalidArgumentError(
                f"{type(self).__name__} needs images of at least {self.min_image_size} pixels (the "
                f"pooling makes smaller ones empty), got {height} x {width}: set "
                f"data.image_size to {self.min_image_size} or more"
            )
