"""ShuffleNetV2 (Ma et al. 2018, arXiv 1807.11164), as implemented in torchvision."""

from __future__ import annotations

from typing import Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import nn

from lit_compress.modules.classifier import NOT_SAVED, ImageClassifier, check_counts
from lit_compress.modules.width import check_width, scaled

#: Channels of each stage, by width (table 5 of the paper).
CHANNELS = {
    0.5: [24, 48, 96, 192, 1024],
    1.0: [24, 116, 232, 464, 1024],
    1.5: [24, 176, 352, 704, 1024],
    2.0: [24, 244, 488, 976, 2048],
}


class ShuffleNetV2(ImageClassifier):
    """ShuffleNetV2: 1.3 million weights, channels that are split and shuffled.

    Source: Ma et al. 2018, arXiv 1807.11164, as implemented in torchvision.

    Args:
        in_channels: Number of channels of the images, at least 1.
        num_classes: Number of classes, at least 2.
        stem: ``imagenet`` makes the last feature map 32 times smaller than the image, ``cifar`` 8
            times. ``cifar`` is slower, and far more accurate on images of 32 pixels.
        width: Factor of the number of channels, above 0. 0.5, 1.0, 1.5 and 2.0 are the paper's
            networks; other factors scale all channels of 1.0, to multiples of 4.
        image_size: Side length in pixels of the example image for the model summary.
        optimizer: Function that creates the optimizer from the parameters. Default: SGD with
            learning rate 0.01, momentum 0.9 and weight decay 1e-5, as in the paper.
        lr_scheduler: Function that creates a scheduler from the optimizer, stepped each epoch.
            Default: none.
        channels_last: Whether to keep weights in channels-last memory format, which trains about
            1.5 times as fast on a CPU.
        init_from: Checkpoint or ``.safetensors`` file with starting weights; only the weights are
            used. Default: random weights.

    Raises:
        InvalidArgumentError: If an argument is out of its range.
        CheckpointError: If ``init_from`` cannot be read or does not match the network.

    Example:
        >>> import torch
        >>> from lit_compress.modules import ShuffleNetV2
        >>> ShuffleNetV2(in_channels=1, width=0.5)(torch.zeros(2, 1, 32, 32)).shape
        torch.Size([2, 10])
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
        check_width(width)
        channels = CHANNELS.get(width) or [scaled(count, width, 4) for count in CHANNELS[1.0]]
        network = Network([4, 8, 4], channels, num_classes)
        first = network.conv1[0]
        stride = 1 if stem == "cifar" else 2
        network.conv1[0] = nn.Conv2d(
            in_channels, first.out_channels, 3, stride, padding=1, bias=False
        )
        if stem == "cifar":
            network.maxpool = nn.Identity()
        super().__init__(
            network,
            in_channels=in_channels,
            num_classes=num_classes,
            image_size=image_size,
            optimizer=optimizer,
            lr_scheduler=lr_scheduler,
            channels_last=channels_last,
            init_from=init_from,
        )
        self.save_hyperparameters(ignore=NOT_SAVED)
