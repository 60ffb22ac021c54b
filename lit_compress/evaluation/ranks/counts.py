"""How many images a network sees in validation, and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from lit_compress.evaluation.last_validation.input_sums import InputSums
from lit_compress.evaluation.validate import Position
from lit_compress.measure.confusion import Confusion


class Counts:
    """The images of each batch that a network was called with, and its answers by label.

    Args:
        position: Says which batch validation is at.
        inputs: What the network takes is added to it; None if it is not needed.

    Attributes:
        images: Number of images by loader and batch.
        confusion: The answers.
    """

    def __init__(self, position: Position, inputs: InputSums | None = None) -> None:
        self.images: dict[tuple[int, int], int] = {}
        self.confusion = Confusion()
        self._at = position
        self._inputs = inputs

    def around(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        """Return a forward that counts.

        Args:
            forward: The forward.
        """

        def counted(*args: Any, **kwargs: Any) -> Any:
            inputs = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
            outputs = forward(*args, **kwargs)
            at = (self._at.loader, self._at.batch)
            # A step may call the network several times for one batch: its images count once.
            if at not in self.images:
                self.images[at] = len(inputs[0]) if inputs else 0
                self.confusion.add(self._at.content, outputs)
                if self._inputs is not None:
                    self._inputs.add(inputs)
            return outputs

        return counted


def forward_of(target: nn.Module, runner: Callable[..., Any] | None) -> Callable[..., Any]:
    """Return the forward of a network, or what takes its place.

    Args:
        target: The network.
        runner: Takes and gives single precision on the CPU; None if nothing takes its place.
    """
    if runner is None:
        return target.forward

    def run(*args: Any, **kwargs: Any) -> Any:
        like = next(target.parameters(), None)
        args, kwargs = tree_map(_on_cpu, (args, kwargs))
        outputs = runner(*args, **kwargs)
        return outputs if like is None else tree_map(lambda leaf: _as(leaf, like), outputs)

    return run


def _on_cpu(leaf: Any) -> Any:
    if not isinstance(leaf, Tensor):
        return leaf
    leaf = leaf.detach().cpu()
    return leaf.float() if leaf.is_floating_point() else leaf


def _as(leaf: Any, like: Tensor) -> Any:
    if not isinstance(leaf, Tensor):
        return leaf
    return leaf.to(like.device, like.dtype if leaf.is_floating_point() else leaf.dtype)
