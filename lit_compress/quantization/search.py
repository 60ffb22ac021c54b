"""How few layers must stay in float for the accuracy to hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lit_compress.quantization.layer_noise import LayerNoise


@dataclass(frozen=True)
class SearchResult:
    """What a search came to.

    Attributes:
        count: Candidate that is taken: the one that holds, or loses the least.
        drop: What it loses.
        holds: Whether that is allowed.
        evaluations: How many candidates were measured.
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
    """Return sets of layers to leave in float, each larger than the one before.

    The layers come by their noise, worst first. One whose activation is at fault comes with those
    that read it, which would quantise it just the same. The last set still leaves one weight in
    int8.

    Args:
        noise: What each layer does to the outputs.
        readers: For each layer, those that take what it gives.
        weighted: Layers with a weight.
        always: Layers that are in float in any case.
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
    """Return the smallest candidate whose drop is allowed, measured itself.

    Candidates double until one holds, and the gap before it is halved: at most
    ``2 log2(total) + 3`` are measured. A drop that does not fall with each candidate may leave a
    smaller one unseen.

    Args:
        total: Number of candidates, 0 the one with no layer in float.
        drop: Measures one.
        allowed: Largest drop.
    """
    seen: dict[int, float] = {}

    def holds(count: int) -> bool:
        if count not in seen:
            seen[count] = drop(count)
        return seen[count] <= allowed

    low, high = -1, 0
    while not holds(high):
        if high == total - 1:
            best = min(seen, key=lambda count: (seen[count], count))
            return SearchResult(best, seen[best], False, len(seen))
        low, high = high, min(max(1, 2 * high), total - 1)
    while high - low > 1:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle
    return SearchResult(high, seen[high], True, len(seen))
