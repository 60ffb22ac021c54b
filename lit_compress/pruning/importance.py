"""Importance of filters: the scores that rank channels against each other."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from typing_extensions import override

from lit_compress.errors import InvalidArgumentError, PatternError
from lit_compress.pruning.channels.graph import ChannelGraph
from lit_compress.pruning.channels.tracing.modules import named_tensors

ImportanceName = Literal["l1", "l2", "bn_scale", "taylor", "fpgm", "random"]


class Importance(ABC):
    """Base class of scores for filters: the lowest scores are pruned first.

    Subclass it and pass an instance to a callback, or give the import path of the subclass in a
    config file. The scores of a layer are divided by their mean before they are compared with
    those of other layers, unless ``absolute`` is set.

    Attributes:
        reads: ``filter`` scores the filters of conv and linear layers, ``scale`` the weights of the
            norm layers. Default: ``filter``.
        needs_gradient: Whether the score needs gradients. Scores are then summed over the training
            steps of the epoch before the pruning step. Default: False.
        absolute: Whether scores of different layers are comparable without scaling. A channel's
            score is then the sum over its filters, otherwise their mean. Default: False.

    Example:
        >>> class Largest(Importance):
        ...     def score(self, weight, gradient):
        ...         return weight.flatten(1).abs().amax(1)
        >>> Largest().score(torch.tensor([[1.0, -3.0], [2.0, 0.0]]), None)
        tensor([3., 2.])
    """

    reads: Literal["filter", "scale"] = "filter"
    needs_gradient = False
    absolute = False

    @abstractmethod
    def score(self, weight: Tensor, gradient: Tensor | None) -> Tensor:
        """Return one score for each filter; a larger score means a more important filter.

        Args:
            weight: The layer's weight, shape (filters, ...), in single precision or better; for
                ``reads = "scale"`` the norm's weight, shape (channels,).
            gradient: Gradient of the weight, same shape, if ``needs_gradient``; otherwise None.

        Returns:
            Vector of shape (filters,), finite.
        """


class L1(Importance):
    """Sum of the magnitudes of a filter's weights (Li et al. 2017, arXiv 1608.08710)."""

    @override
    def score(self, weight: Tensor, gradient: Tensor | None) -> Tensor:
        return weight.flatten(1).abs().sum(1)


class L2(Importance):
    """Euclidean norm of a filter's weights."""

    @override
    def score(self, weight: Tensor, gradient: Tensor | None) -> Tensor:
        return weight.flatten(1).square().sum(1).sqrt()


class BatchNormScale(Importance):
    """Magnitude of the scale in the norm after a filter (Liu et al. 2017, arXiv 1708.06519)."""

    reads = "scale"

    @override
    def score(self, weight: Tensor, gradient: Tensor | None) -> Tensor:
        return weight.abs()


class Taylor(Importance):
    """Estimated change of the loss when a filter is removed.

    The square of the sum of weight times gradient, summed over the training steps of an epoch
    (Molchanov et al. 2019, arXiv 1906.10771, equation 8).
    """

    needs_gradient = True
    absolute = True

    @override
    def score(self, weight: Tensor, gradient: Tensor | None) -> Tensor:
        if gradient is None:
            raise InvalidArgumentError(
                "taylor scores need gradients, and none has been computed: train for one step"
            )
        return (weight * gradient).flatten(1).sum(1).square()


class Fpgm(Importance):
    """Summed distance of a filter to the other filters of its layer.

    Filter pruning via geometric median (He et al. 2019, arXiv 1811.00250).
    """

    @override
    def score(self, weight: Tensor, gradient: Tensor | None) -> Tensor:
        flat = weight.flatten(1)
        return torch.cdist(flat, flat).sum(1)


class Random(Importance):
    """Random scores: the baseline for any other importance.

    Args:
        seed: Random seed of the scores.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    @override
    def score(self, weight: Tensor, gradient: Tensor | None) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed + weight.numel())
        return torch.rand(len(weight), generator=generator)


_BY_NAME: dict[str, type[Importance]] = {
    "l1": L1,
    "l2": L2,
    "bn_scale": BatchNormScale,
    "taylor": Taylor,
    "fpgm": Fpgm,
    "random": Random,
}


def importance_of(importance: ImportanceName | Importance) -> Importance:
    """Return the importance with a given name; an :class:`Importance` is returned as it is.

    Raises:
        InvalidArgumentError: If the name is unknown, or the value is of another type.
    """
    if isinstance(importance, Importance):
        return importance
    if importance not in _BY_NAME:
        raise InvalidArgumentError(
            f"importance must be one of {', '.join(get_args(ImportanceName))}, or a subclass of "
            f"lit_compress.pruning.Importance, got {importance!r}"
        )
    return _BY_NAME[importance]()


def layer_scores(
    module: nn.Module,
    graph: ChannelGraph,
    importance: Importance,
    tensors: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Return the scores of the filters of each layer, by the name of the tensor they come from.

    Args:
        module: The network.
        graph: Channels of the network.
        importance: Scores the filters.
        tensors: Tensors by name to score instead of the network's own. Default: none.

    Returns:
        By tensor name, a vector of scores, in double precision on the CPU. Tensors without a
        gradient are skipped if the importance needs one.

    Raises:
        PatternError: If a weight holds NaN, or a score is not finite.
        InvalidArgumentError: If the importance does not return one score for each filter.
    """
    tensors = named_tensors(module) | dict(tensors or {})
    scores: dict[str, Tensor] = {}
    norms = norm_weights(module) if importance.reads == "scale" else set()
    for name, dim in graph.channel_of:
        tensor = tensors[name]
        role = "scale" if importance.reads == "scale" else "filter"
        wanted = graph.roles[name, dim] == role and (role == "filter" or name in norms)
        gradient = tensor.grad if importance.needs_gradient else None
        if not wanted or (importance.needs_gradient and gradient is None):
            continue
        if gradient is not None:
            gradient = gradient.movedim(dim, 0).float()
            if not gradient.isfinite().all():
                continue  # gradient overflow in half precision: the loss scaler skips this step too
        weight = tensor.detach().movedim(dim, 0)
        refuse_nan({name: weight})
        score = importance.score(
            weight.to(torch.promote_types(weight.dtype, torch.float32)), gradient
        )
        scores[name] = _check_score(score, name, len(weight), importance)
    return scores


def _check_score(score: Any, name: str, count: int, importance: Importance) -> Tensor:
    """Return a score in double precision on the CPU, after checking its shape and values."""
    kind = type(importance).__name__
    if not isinstance(score, Tensor) or score.shape != (count,):
        found = f"shape {tuple(score.shape)}" if isinstance(score, Tensor) else type(score).__name__
        raise InvalidArgumentError(
            f"{kind}.score must return a tensor with one score for each filter, ({count},) for "
            f"{name}, got {found}"
        )
    if not score.isfinite().all():
        raise PatternError(
            f"{kind} gives a filter of {name} a score that is not finite: check the weights for "
            "infinity, or choose another importance"
        )
    return score.detach().double().cpu()


def refuse_nan(tensors: Mapping[str, Tensor]) -> None:
    """Check that no tensor holds NaN.

    Raises:
        PatternError: If a tensor does; the message names it.
    """
    for name, tensor in tensors.items():
        # A sum with NaN is NaN, and takes one pass without a copy; other sums are looked at again.
        if not tensor.sum().isfinite() and tensor.isnan().any():
            raise PatternError(
                f"{name} holds NaN, so its filters cannot be ranked: the training has diverged "
                "(lower the learning rate, or start again from a checkpoint without NaN)"
            )


def scores_by_channel(
    graph: ChannelGraph, scores: Mapping[str, Tensor], importance: Importance
) -> np.ndarray:
    """Return the score of each channel, from the scores of its filters.

    Args:
        graph: Channels of the network.
        scores: Scores of the filters, from :func:`layer_scores`.
        importance: The importance that gave the scores.

    Returns:
        Vector of shape (graph.channel_count,); NaN for channels without a score.
    """
    total, count = np.zeros(graph.channel_count), np.zeros(graph.channel_count)
    for (name, dim), channels in graph.channel_of.items():
        if name not in scores or graph.roles[name, dim] not in ("filter", "scale"):
            continue
        values = scores[name].numpy()
        mean = values.mean()
        if not importance.absolute and mean > 0:
            values = values / mean
        removable = channels >= 0
        members, where = np.unique(channels[removable], return_inverse=True)
        total[members] += np.bincount(where, values[removable], len(members))
        count[members] += np.bincount(where, minlength=len(members))
    with np.errstate(invalid="ignore"):
        return np.where(count > 0, total if importance.absolute else total / count, np.nan)


def norm_weights(module: nn.Module) -> set[str]:
    """Return the names of the weights of the norm layers in a module."""
    return {
        f"{name}.weight"
        for name, layer in module.named_modules()
        if isinstance(layer, (_NormBase, nn.GroupNorm))
    }
