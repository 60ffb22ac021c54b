"""Search for the smallest number of float layers that keeps the accuracy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lit_compress.quantization.layer_noise import LayerNoise


@dataclass(frozen=True)
class SearchResult:
    """Result of a search for the smallest allowed set of float layers.

    Attributes:
        count: Index of the chosen candidate: the first one found whose drop is allowed, or the one
            with the smallest drop if none is allowed.
        drop: Measured drop of the chosen candidate.
        holds: Whether this drop is allowed.
        evaluations: Number of candidates that were measured.
    """

    count: int
    drop: float
    holds: bool
    evaluations: int


def candidates(
    noise: Sequence[LayerNoise],
    readers: Mapping[str, Sequence[str]],
    weighted: Sequence[str],
    always: frozenset[str] = frozenset(),
) -> list[frozenset[str]]:
    """Return candidate sets of layers to leave in float, each a superset of the one before.

    Layers are added in the order of their error, largest error (lowest SQNR) first. If the
    activation of a layer causes the error, its readers are added too, because they would quantise
    that activation as well. In every set, at least one layer with a weight stays int8.

    Args:
        noise: Error of the outputs for each layer alone.
        readers: By name of a layer, the names of the layers that read its output.
        weighted: Names of the layers with a weight.
        always: Names of layers that stay in float in every set. Default: none.

    Example:
        >>> noise = [LayerNoise("a", 20.0, None), LayerNoise("b", 40.0, 10.0)]
        >>> [sorted(names) for names in candidates(noise, {"b": ["c"]}, ["a", "b", "c"])]
        [[], ['b', 'c']]
    """
    sets, current = [always], always
    for layer in sorted(noise, key=lambda row: row.worst_db):
        more = {layer.name}
        if layer.fault == "activation":
            more.update(readers.get(layer.name, ()))
        if more <= current:
            continue
        current = current | more
        if not set(weighted) - current:
            break
        sets.append(current)
    return sets


def fewest_floats(total: int, drop: Callable[[int], float], allowed: float) -> SearchResult:
    """Find the smallest candidate whose measured drop is allowed, by exponential and binary search.

    The index doubles until a drop is allowed (Bentley and Yao 1976), then binary search follows. At
    most ``2 log2(total) + 3`` candidates are measured. If the drop does not fall with the index, a
    smaller allowed candidate may be missed.

    Args:
        total: Number of candidates, at least 1; candidate 0 has the fewest float layers.
        drop: Function that measures the drop of a candidate, given its index.
        allowed: Largest allowed drop.

    Example:
        >>> fewest_floats(100, drop=lambda count: 1.0 if count < 7 else 0.0, allowed=0.5)
        SearchResult(count=7, drop=0.0, holds=True, evaluations=7)
    """
    drops: dict[int, float] = {}

    def holds(count: int) -> bool:
        if count not in drops:
            drops[count] = drop(count)
        return drops[count] <= allowed

    low, high = -1, 0
    while not holds(high):
        if high == total - 1:
            best = min(drops, key=lambda count: (drops[count], count))
            return SearchResult(best, drops[best], False, len(drops))
        low, high = high, min(max(1, 2 * high), total - 1)
    while high - low > 1:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle
    return SearchResult(high, drops[high], True, len(drops))
