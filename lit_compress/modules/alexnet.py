"""AlexNet (Krizhevsky 2014, arXiv 1404.5997), as implemented in torchvision."""

from __future__ import annotations

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import nn

from lit_compress.modules.classifier import NOT_SAVED, ImageClassifier, check_counts
from lit_compress.modules.width import check_width, scaled


class AlexNet(ImageClassifier):
    """AlexNet: 57 million weights, 54.5 million of them in two linear layers.

    Source: Krizhevsky 2014, arXiv 1404.5997, as implemented in torchvision.

    Args:
        in_channels: Number of channels of the images, at least 1.
        num_classes: Number of classes, at least 2.
        dropout: Dropout rate before the two hidden linear layers, in [0, 1).
        width: Factor of the number of channels and of the sizes of the hidden linear layers, above
            0.
        image_size: Side length in pixels of the example image for the model summary, at least 63.
        optimizer: Function that creates the optimizer from the parameters. Default: SGD with
            learning rate 0.01, momentum 0.9 and weight decay 1e-5, as in the paper.
        lr_scheduler: Function that creates a scheduler from the optimizer, stepped each epoch.
            Default: none.
        channels_last: Whether to keep weights in channels-last memory format, which is slower for
            this network on most CPUs.
        init_from: Checkpoint or ``.safetensors`` file with starting weights; only the weights are
            used. Default: random weights.

    Raises:
        InvalidArgumentError: If an argument is out of its range.
        CheckpointError: If ``init_from`` cannot be read or does not match the network.

    Example:
        >>> import torch
        >>> from lit_compress.modules import AlexNet
        >>> AlexNet(in_channels=1, num_classes=4)(torch.zeros(2, 1, 64, 64)).shape
        torch.Size([2, 4])
    """

    min_image_size = 63

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 10,
        dropout: float = 0.5,
        width: float = 1.0,
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
        check_width(width)
        network = alexnet(num_classes=num_classes, dropout=dropout)
        network.features[0] = nn.Conv2d(in_channels, 64, 11, stride=4, padding=2)
        if width != 1:
            _resize(network, in_channels, width)
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


def _resize(network: nn.Module, channels: int, width: float) -> None:
    """Replace the layers by ones of another width; the last keeps its outputs."""
    features, classifier = network.get_submodule("features"), network.get_submodule("classifier")
    for name, layer in features.named_children():
        if isinstance(layer, nn.Conv2d):
            wide = scaled(layer.out_channels, width, 1)
            side = layer.kernel_size[0]
            new = nn.Conv2d(channels, wide, side, layer.stride[0], padding=int(layer.padding[0]))
            setattr(features, name, new)
            channels = wide
    inputs = channels * 6 * 6  # pixels of the pooled feature map
    linear = [
        (n, layer) for n, layer in classifier.named_children() if isinstance(layer, nn.Linear)
    ]
    for name, layer in linear:
        last = name == linear[-1][0]
        outputs = layer.out_features if last else scaled(layer.out_features, width, 1)
        setattr(classifier, name, nn.Linear(inputs, outputs))
        inputs = outputs
