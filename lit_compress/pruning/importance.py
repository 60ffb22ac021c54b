"""How much each filter matters: scores by which channels are ranked."""

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
from lit_compress.pruning.channels.trace import named_tensors

ImportanceName = Literal["l1", "l2", "bn_scale", "taylor", "fpgm", "random"]


class Importance(ABC):
    """Scores the filters of a layer; subclass it, and name the subclass by its import path.

    Scores of a layer are divided by their mean before layers are compared, unless ``absolute``.

    Attributes:
        reads: ``filter`` scores a layer's filters, ``scale`` the weights of the norm behind it.
        needs_gradient: Scores are added up over the training steps of the epoch before.
        absolute: Scores compare between layers as they are, and add up over the filters of a class.
    """

    reads: Literal["filter", "scale"] = "filter"
    needs_gradient = False
    absolute = False

    @abstractmethod
    def score(self, weight: Tensor, gradient: Tensor | None) -> Tensor:
        """Return one score a filter, the larger the more it matters.

        Args:
            weight: The layer's weight, filters in its first dimension, float.
            gradient: Its gradient, of the same shape, if ``needs_gradient``.
        """


class L1(Importance):
    """Sum of the magnitudes of a filter (Li et al. 2017, arXiv 1608.08710)."""

    @override
    def score(self, weight: Tensor, gradient: Tensor | None) -> Tensor:
        return weight.flatten(1).abs().sum(1)


class L2(Importance):
    """Euclidean norm of a filter."""

    @override
    def score(self, weight: Tensor, gradient: Tensor | None) -> Tensor:
        return weight.flatten(1).square().sum(1).sqrt()


class BatchNormScale(Importance):
    """Magnitude of the norm's scale behind a filter (Liu et al. 2017, arXiv 1708.06519)."""

    reads = "scale"

    @override
    def score(self, weight: Tensor, gradient: Tensor | None) -> Tensor:
        return weight.abs()


class Taylor(Importance):
    """Estimated change of the loss without a filter.

    The square of the sum of weight times gradient, added up over the training steps of an epoch
    (Molchanov et al. 2019, arXiv 1906.10771, equation 8).
    """

    needs_gradient = True
    absolute = True

    @override
    def score(self, weight: Tensor, gradient: Tensor | None) -> Tensor:
        if gradient is None:
            raise InvalidArgumentError("taylor scores need gradients: none has been computed")
        return (weight * gradient).flatten(1).sum(1).square()


class Fpgm(Importance):
    """Distance of a filter from the others of its layer (He et al. 2019, arXiv 1811.00250)."""

    @override
    def score(self, weight: Tensor, gradient: Tensor | None) -> Tensor:
        flat = weight.flatten(1)
        return torch.cdist(flat, flat).sum(1)


class Random(Importance):
    """No information: the baseline of any ranking.

    Args:
        seed: Another one gives another choice.
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
    """Return the importance of a name, or the one given.

    Raises:
        InvalidArgumentError: If there is none of that name.
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
    """Return the scores of each layer's filters, by the name of the tensor they were read from.

    Args:
        module: The network.
        graph: Its channels.
        importance: The score.
        tensors: What to score in the place of the network's own tensors, by name.

    Raises:
        PatternError: If a weight holds NaN, or a score is not finite.
        InvalidArgumentError: If there is not one score a filter.
    """
    tensors = named_tensors(module) | dict(tensors or {})
    scores: dict[str, Tensor] = {}
    norms = norm_weights(module) if importance.reads == "scale" else set()
    for name, dim in graph.channel_of:
        tensor = tensors[name]
        wanted = (
            name in norms if importance.reads == "scale" else graph.roles[name, dim] == "filter"
        )
        gradient = tensor.grad if importance.needs_gradient else None
        if not wanted or (importance.needs_gradient and gradient is None):
            continue
        if gradient is not None:
            gradient = gradient.movedim(dim, 0).float()
            if not gradient.isfinite().all():
                continue  # too large for half precision: the loss scaler leaves the step out too
        weight = tensor.detach().movedim(dim, 0)
        refuse_nan({name: weight})
        score = importance.score(
            weight.to(torch.promote_types(weight.dtype, torch.float32)), gradient
        )
        scores[name] = _checked(score, name, len(weight), importance)
    return scores


def _checked(score: Any, name: str, count: int, importance: Importance) -> Tensor:
    kind = type(importance).__name__
    if not isinstance(score, Tensor) or score.shape != (count,):
        found = f"shape {tuple(score.shape)}" if isinstance(score, Tensor) else type(score).__name__
        raise InvalidArgumentError(
            f"{kind}.score must return a tensor with one score a filter, ({count},) for {name}, "
            f"got {found}"
        )
    if not score.isfinite().all():
        raise PatternError(f"{kind} gives a filter of {name} a score that is not finite")
    return score.detach().double().cpu()


def refuse_nan(tensors: Mapping[str, Tensor]) -> None:
    """Make sure that no tensor holds NaN.

    Raises:
        PatternError: If one does; the message names it.
    """
    for name, tensor in tensors.items():
        if tensor.isnan().any():
            raise PatternError(
                f"{name} holds NaN, so its filters cannot be ranked: the training has diverged "
                "(lower the learning rate, or start again from a sound checkpoint)"
            )


def scores_by_channel(
    graph: ChannelGraph, scores: Mapping[str, Tensor], importance: Importance
) -> np.ndarray:
    """Return the scores of channel classes from those of their layers; NaN where there is none.

    Args:
        graph: The network's channels.
        scores: As :func:`layer_scores` gives them.
        importance: Tells how they compare.
    """
    total, count = np.zeros(graph.channel_count), np.zeros(graph.channel_count)
    for (name, dim), channels in graph.channel_of.items():
        if name not in scores or graph.roles[name, dim] not in ("filter", "scale"):
            continue
        values = scores[name].numpy()
        mean = values.mean()
        if not importance.absolute and mean > 0:
            values = values / mean
        free = channels >= 0
        total += np.bincount(channels[free], values[free], graph.channel_count)
        count += np.bincount(channels[free], minlength=graph.channel_count)
    with np.errstate(invalid="ignore"):
        return np.where(count > 0, total if importance.absolute else total / count, np.nan)


def norm_weights(module: nn.Module) -> set[str]:
    """Return the names of the weights of a module's norm layers."""
    return {
        f"{name}.weight"
        for name, layer in module.named_modules()
        if isinstance(layer, (_NormBase, nn.GroupNorm))
    }
