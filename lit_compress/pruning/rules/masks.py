"""Masks of weights by rules: they zero single elements or whole filters."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from zlib import crc32

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from lit_compress.errors import PatternError, RuleError
from lit_compress.pruning.importance import importance_of
from lit_compress.pruning.layers import prunable_layers
from lit_compress.pruning.masks import Masks, Scope, keep_largest, magnitudes
from lit_compress.pruning.rules.rule import Rule

#: Importances that need only the filters of one layer, and no norm or gradient.
BY_WEIGHT = ("l1", "l2", "fpgm", "random")


def rule_masks(
    module: nn.Module,
    ruled: Mapping[str, Rule],
    progress: Fraction = Fraction(1),
    stage: int = 0,
    scope: Scope = "local",
    previous: Mapping[str, Tensor] | None = None,
    absent: Mapping[str, Tensor] | None = None,
) -> Masks:
    """Return boolean masks (True: kept) that prune weights by rules.

    Exactly ``ceil(n * ratio)`` of the ``n`` elements or filters of each weight are pruned
    (``local``), or of all weights of a rule together (``global``). Of equal scores, the lowest
    index is pruned first. Weights that ``previous`` prunes stay pruned. Filters are only zeroed;
    :class:`lit_compress.pruning.selection.by_rules.RuleSelector` selects filters to remove.

    Args:
        module: The network.
        ruled: Rules by the name of the weight to prune, from :func:`assign`.
        progress: Share of the target that the schedule has reached, in [0, 1]. Default: all of it.
        stage: Number of the pruning step, from 0.
        scope: ``local`` ranks each weight on its own, ``global`` all weights of a rule together.
        previous: Masks of the pruning step before. Default: nothing is pruned.
        absent: By name, False for elements of removed channels, which do not count. Default: none.

    Returns:
        By name, one mask for each weight, of its shape, on the CPU.

    Raises:
        PatternError: If a weight is NaN, or the score of a filter is not finite.
        RuleError: If a rule's importance cannot rank filters, or its filters cannot be zeroed.
    """
    weights = dict(module.named_parameters(remove_duplicate=False))
    dims = filter_dims(module)
    masks: Masks = {}
    rules: dict[tuple[str, Fraction], list[str]] = {}
    for name, rule in ruled.items():
        rules.setdefault((rule.place, rule.due(progress, stage)), []).append(name)
    for (_, share), names in rules.items():
        elements: dict[str, Tensor] = {}
        filters: dict[str, Tensor] = {}
        for name in names:
            kind = ruled[name].kind(weights[name].dim())
            (elements if kind == "element" else filters)[name] = weights[name]
        masks |= _element_masks(
            elements,
            ruled=ruled,
            share=share,
            scope=scope,
            previous=previous or {},
            absent=absent or {},
        )
        masks |= _filter_masks(
            filters, ruled=ruled, share=share, scope=scope, previous=previous or {}, dims=dims
        )
    return {name: masks[name] for name in ruled}


def filter_dims(module: nn.Module) -> dict[str, int]:
    """Return the dimension of the filters of each conv and linear weight, by its name.

    It is -1 for grouped transposed convolutions, where one index belongs to several filters.
    """
    dims = {}
    for name, layer in prunable_layers(module).items():
        dim = 0
        if isinstance(layer, _ConvTransposeNd) and isinstance(layer, _ConvNd):
            dim = 1 if layer.groups == 1 else -1
        dims[f"{name}.weight" if name else "weight"] = dim
    return dims


def check_filters(ruled: Mapping[str, Rule], dims: Mapping[str, int]) -> None:
    """Check that filters can be zeroed by their rules.

    Args:
        ruled: Rules by the name of the weight whose filters or neurons they prune.
        dims: Dimensions of the filters, from :func:`filter_dims`.

    Raises:
        RuleError: If a rule's importance cannot rank filters, or its filters cannot be zeroed.
    """
    for name, rule in ruled.items():
        if rule.importance not in (None, *BY_WEIGHT):
            raise RuleError(
                f"{rule.place}: importance {rule.importance!r} does not rank filters that are only "
                f"zeroed ({name}): use one of {', '.join(BY_WEIGHT)}, or remove them "
                "(shrink: every)"
            )
        if dims.get(name, 0) < 0:
            raise RuleError(
                f"{rule.place}: filters of the grouped transposed convolution {name} cannot be "
                "zeroed one by one: use granularity element, or remove them (shrink: every)"
            )


def _element_masks(
    weights: Mapping[str, Tensor],
    *,
    ruled: Mapping[str, Rule],
    share: Fraction,
    scope: Scope,
    previous: Mapping[str, Tensor],
    absent: Mapping[str, Tensor],
) -> Masks:
    """Return masks of single elements."""
    scores, present = {}, {}
    for name, weight in weights.items():
        score = magnitudes(name, weight)
        if ruled[name].importance == "random":
            score = np.random.default_rng(crc32(name.encode())).random(score.size)
        if name in previous:
            score = np.where(_flat(previous[name]), score, -1)
        present[name] = _flat(absent[name]) if name in absent else np.ones(score.size, bool)
        scores[name] = score[present[name]]
    masks: Masks = {}
    for name, kept in keep_largest(scores, share, scope).items():
        mask = np.ones(present[name].size, bool)
        mask[present[name]] = kept
        masks[name] = torch.from_numpy(mask).view(weights[name].shape)
    return masks


def _filter_masks(
    weights: Mapping[str, Tensor],
    *,
    ruled: Mapping[str, Rule],
    share: Fraction,
    scope: Scope,
    previous: Mapping[str, Tensor],
    dims: Mapping[str, int],
) -> Masks:
    """Return masks of whole filters."""
    check_filters({name: ruled[name] for name in weights}, dims)
    scores = {}
    for name, weight in weights.items():
        magnitudes(name, weight)  # refuses NaN
        moved = weight.detach().movedim(dims[name], 0).cpu()
        moved = moved.to(torch.promote_types(weight.dtype, torch.float32))
        importance = importance_of(ruled[name].importance or "l2")  # type: ignore[arg-type]
        score = importance.score(moved, None).double().numpy()
        if not np.isfinite(score).all():
            raise PatternError(
                f"a filter of {name} has a score that is not finite: check the weights for infinity"
            )
        if scope == "global" and score.mean() > 0:
            score = score / score.mean()
        if name in previous:
            kept = previous[name].movedim(dims[name], 0).flatten(1).any(1).numpy()
            score = np.where(kept, score, -1)
        scores[name] = score
    masks: Masks = {}
    for name, kept in keep_largest(scores, share, scope).items():
        mask = torch.ones(weights[name].shape, dtype=torch.bool)
        masks[name] = mask.index_fill_(dims[name], torch.from_numpy(np.flatnonzero(~kept)), False)
    return masks


def _flat(mask: Tensor) -> np.ndarray:
    flat: np.ndarray = mask.reshape(-1).cpu().numpy()
    return flat
