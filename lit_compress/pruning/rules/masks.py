"""Masks of weights by rules: single elements, or whole filters, that are set to zero."""

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

#: Scores of filters that need nothing but the filters.
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
    """Return boolean masks (True: kept) of what rules set to zero.

    Exactly ``ceil(n * ratio)`` of the ``n`` elements, or filters, of a weight go (``local``), or of
    all weights of a rule together (``global``); ties go in index order, and what was dropped before
    stays dropped. Filters are only set to zero: to remove them, see
    :class:`lit_compress.pruning.selection.by_rules.RuleSelector`.

    Args:
        module: The network.
        ruled: The weights to mask, by name, with their rules.
        progress: How far the schedule is, from 0 to 1.
        stage: Number of the event, from 0.
        scope: Rank each weight alone, or all of a rule together.
        previous: Masks of an earlier event.
        absent: By name, False where elements are as good as removed: they do not count.

    Returns:
        One mask a weight, of its shape, on the CPU.

    Raises:
        PatternError: If a weight is NaN, or a filter's score not finite.
        RuleError: If filters cannot be ranked as the rule says.
    """
    weights = dict(module.named_parameters(remove_duplicate=False))
    dims = filter_dims(module)
    masks: Masks = {}
    rules: dict[tuple[str, Fraction], list[str]] = {}
    for name, rule in ruled.items():
        rules.setdefault((rule.place, rule.due(progress, stage)), []).append(name)
    for (_, share), names in rules.items():
        for element in (True, False):
            chosen = {
                name: weights[name]
                for name in names
                if (ruled[name].kind(weights[name].dim()) == "element") == element
            }
            if element:
                masks |= _elements(chosen, ruled, share, scope, previous or {}, absent or {})
            else:
                masks |= _filters(chosen, ruled, share, scope, previous or {}, dims)
    return {name: masks[name] for name in ruled}


def filter_dims(module: nn.Module) -> dict[str, int]:
    """Return, by weight, the dimension of its filters; -1 where an index is several filters."""
    dims = {}
    for name, layer in prunable_layers(module).items():
        dim = 0
        if isinstance(layer, _ConvTransposeNd) and isinstance(layer, _ConvNd):
            dim = 1 if layer.groups == 1 else -1
        dims[f"{name}.weight" if name else "weight"] = dim
    return dims


def check_filters(ruled: Mapping[str, Rule], dims: Mapping[str, int]) -> None:
    """Make sure that filters can be set to zero as their rules say.

    Args:
        ruled: Weights whose filters or neurons are to be masked, by name.
        dims: As :func:`filter_dims` gives them.

    Raises:
        RuleError: If one cannot.
    """
    for name, rule in ruled.items():
        if rule.importance not in (None, *BY_WEIGHT):
            raise RuleError(
                f"{rule.place}: importance {rule.importance!r} does not rank filters that are only "
                f"set to zero ({name}): use one of {', '.join(BY_WEIGHT)}, or remove them "
                "(shrink: every)"
            )
        if dims.get(name, 0) < 0:
            raise RuleError(
                f"{rule.place}: filters of the grouped transposed convolution {name} cannot be set "
                "to zero one by one: use granularity element, or remove them (shrink: every)"
            )


def _elements(
    weights: Mapping[str, Tensor],
    ruled: Mapping[str, Rule],
    share: Fraction,
    scope: Scope,
    previous: Mapping[str, Tensor],
    absent: Mapping[str, Tensor],
) -> Masks:
    scores, there = {}, {}
    for name, weight in weights.items():
        score = magnitudes(name, weight)
        if ruled[name].importance == "random":
            score = np.random.default_rng(crc32(name.encode())).random(score.size)
        if name in previous:
            score = np.where(_flat(previous[name]), score, -1)
        there[name] = _flat(absent[name]) if name in absent else np.ones(score.size, bool)
        scores[name] = score[there[name]]
    masks: Masks = {}
    for name, kept in keep_largest(scores, share, scope).items():
        whole = np.ones(there[name].size, bool)
        whole[there[name]] = kept
        masks[name] = torch.from_numpy(whole).view(weights[name].shape)
    return masks


def _filters(
    weights: Mapping[str, Tensor],
    ruled: Mapping[str, Rule],
    share: Fraction,
    scope: Scope,
    previous: Mapping[str, Tensor],
    dims: Mapping[str, int],
) -> Masks:
    check_filters({name: ruled[name] for name in weights}, dims)
    scores = {}
    for name, weight in weights.items():
        magnitudes(name, weight)  # refuses NaN
        moved = weight.detach().movedim(dims[name], 0).cpu()
        moved = moved.to(torch.promote_types(weight.dtype, torch.float32))
        ranked = importance_of(ruled[name].importance or "l2")  # type: ignore[arg-type]
        score = ranked.score(moved, None).double().numpy()
        if not np.isfinite(score).all():
            raise PatternError(f"a filter of {name} has a score that is not finite")
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
