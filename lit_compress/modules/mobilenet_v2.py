"""MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381), as torchvision has it."""

from __future__ import annotations

from typing import Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import nn

from lit_compress.modules.classifier import NOT_SAVED, ImageClassifier, check_counts

#: Expansion, channels, blocks and stride of each stage (table 2).
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class MobileNetV2(ImageClassifier):
    """MobileNetV2: 2.2 million weights, inverted residuals of depthwise convolutions.

    Args:
        in_channels: Channels of the images.
        num_classes: Number of classes.
        stem: ``imagenet`` shrinks the image 32 times in all, ``cifar`` 8 times: slower, and far
            better on images of 32 pixels.
        width: Multiplies the number of channels.
        dropout: Dropout before the classifier, in [0, 1).
        image_size: Side length of the example image, for the summary.
        optimizer: Given the parameters. Default: SGD of rate 0.01, momentum 0.9, decay 1e-5.
        lr_scheduler: Given the optimizer; stepped each epoch. Default: none.
        channels_last: Keep weights in channels-last order: up to twice as fast to train on a CPU.
        init_from: Starting weights: a checkpoint or ``.safetensors``; nothing else of it is used.
    """

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 10,
        stem: Literal["imagenet", "cifar"] = "imagenet",
        width: float = 1.0,
        dropout: float = 0.2,
        image_size: int = 32,
        optimizer: OptimizerCallable = lambda params: torch.optim.SGD(
            params, lr=0.01, momentum=0.9, weight_decay=1e-5
        ),
        lr_scheduler: LRSchedulerCallable | None = None,
        channels_last: bool = True,
        init_from: str | None = None,
    ) -> None:
        from torchvision.models import MobileNetV2 as Network

        check_counts(in_channels, num_classes)
        stages = [list(stage) for stage in STAGES]
        if stem == "cifar":
            stages[1][3] = 1
        network = Network(num_classes, width, stages, dropout=dropout)
        first = network.features[0][0]
        stride = 1 if stem == "cifar" else 2
        new = nn.Conv2d(in_channels, first.out_channels, 3, stride, padding=1, bias=False)
        nn.init.kaiming_normal_(new.weight, mode="fan_out")
        network.features[0][0] = new
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
