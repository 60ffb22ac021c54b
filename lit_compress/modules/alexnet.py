"""AlexNet (Krizhevsky 2014, arXiv 1404.5997), as torchvision has it."""

from __future__ import annotations

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import nn

from lit_compress.modules.classifier import NOT_SAVED, ImageClassifier, check_counts


class AlexNet(ImageClassifier):
    """AlexNet: 57 million weights, 54.5 million of them in two linear layers.

    Args:
        in_channels: Channels of the images.
        num_classes: Number of classes.
        dropout: Dropout before the two hidden linear layers, in [0, 1).
        image_size: Side length of the example image, for the summary; at least 63.
        optimizer: Given the parameters. Default: SGD of rate 0.01, momentum 0.9, decay 1e-5.
        lr_scheduler: Given the optimizer; stepped each epoch. Default: none.
        channels_last: Keep weights in channels-last order; slower here on most CPUs.
        init_from: Starting weights: a checkpoint or ``.safetensors``; nothing else of it is used.
    """

    min_image_size = 63

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 10,
        dropout: float = 0.5,
        image_size: int = 64,
        optimizer: OptimizerCallable = lambda params: torch.optim.SGD(
            params, lr=0.01, momentum=0.9, weight_decay=1e-5
        ),
        lr_scheduler: LRSchedulerCallable | None = None,
        channels_last: bool = False,
        init_from: str | None = None,
    ) -> None:
        from torchvision.models import alexnet

        check_counts(in_channels, num_classes)
        network = alexnet(num_classes=num_classes, dropout=dropout)
        network.features[0] = nn.Conv2d(in_channels, 64, 11, stride=4, padding=2)
        super().__init__(
            network,
            in_channels,
            num_classes,
            image_size,
            optimizer,
            lr_scheduler,
            channels_last,
            init_from,
        )
        self.save_hyperparameters(ignore=NOT_SAVED)
