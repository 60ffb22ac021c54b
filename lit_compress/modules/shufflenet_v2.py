"""ShuffleNetV2 (Ma et al. 2018, arXiv 1807.11164), as torchvision has it."""

from __future__ import annotations

from typing import Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import nn

from lit_compress.errors import InvalidArgumentError
from lit_compress.modules.classifier import NOT_SAVED, ImageClassifier, check_counts

#: Channels of each stage by width (table 5).
CHANNELS = {
    0.5: [24, 48, 96, 192, 1024],
    1.0: [24, 116, 232, 464, 1024],
    1.5: [24, 176, 352, 704, 1024],
    2.0: [24, 244, 488, 976, 2048],
}


class ShuffleNetV2(ImageClassifier):
    """ShuffleNetV2: 1.3 million weights, split and shuffled channels.

    Args:
        in_channels: Channels of the images.
        num_classes: Number of classes.
        stem: ``imagenet`` shrinks the image 32 times in all, ``cifar`` 8 times: slower, and far
            better on images of 32 pixels.
        width: 0.5, 1.0, 1.5 or 2.0, the paper's four sizes.
        image_size: Side length of the example image, for the summary.
        optimizer: Given the parameters. Default: SGD of rate 0.01, momentum 0.9, decay 1e-5.
        lr_scheduler: Given the optimizer; stepped each epoch. Default: none.
        channels_last: Keep weights in channels-last order: half again as fast to train on a CPU.
        init_from: Starting weights: a checkpoint or ``.safetensors``; nothing else of it is used.
    """

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 10,
        stem: Literal["imagenet", "cifar"] = "imagenet",
        width: float = 1.0,
        image_size: int = 32,
        optimizer: OptimizerCallable = lambda params: torch.optim.SGD(
            params, lr=0.01, momentum=0.9, weight_decay=1e-5
        ),
        lr_scheduler: LRSchedulerCallable | None = None,
        channels_last: bool = True,
        init_from: str | None = None,
    ) -> None:
        from torchvision.models import ShuffleNetV2 as Network

        check_counts(in_channels, num_classes)
        if width not in CHANNELS:
            raise InvalidArgumentError(
                f"model.width must be one of {', '.join(map(str, CHANNELS))}, got {width}"
            )
        network = Network([4, 8, 4], CHANNELS[width], num_classes)
        first = network.conv1[0]
        stride = 1 if stem == "cifar" else 2
        network.conv1[0] = nn.Conv2d(
            in_channels, first.out_channels, 3, stride, padding=1, bias=False
        )
        if stem == "cifar":
            network.maxpool = nn.Identity()
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
