"""What a network will lose by pruning, as a table that is printed before anything is changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from lit_compress.pruning.rules.rule import Rule
from lit_compress.pruning.selection.budget import Budget

#: With more layers than these, a folded preview has one row for all layers that fare alike.
MOST_ROWS = 16


@dataclass(frozen=True)
class LayerPreview:
    """What a layer loses of its filters.

    Attributes:
        name: Name of the layer.
        filters: Number of its filters.
        kept: Number of filters that it keeps.
        fixed: Number of filters that cannot be removed.
        reasons: Why they cannot.
    """

    name: str
    filters: int
    kept: int
    fixed: int = 0
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class WeightPreview:
    """What a weight loses by its rule.

    Attributes:
        name: Name of the weight.
        rule: The rule that matches it, None if none does.
        granularity: What is pruned: ``element``, ``filter``, ``neuron`` or ``nothing``.
        size: Number of its elements.
        left: Number of elements that are neither removed nor zero at the end.
    """

    name: str
    rule: Rule | None
    granularity: str
    size: int
    left: int


@dataclass(frozen=True)
class PruningPreview:
    """What a network loses by pruning; print it as a table.

    Attributes:
        layers: Its conv and linear layers, where filters are removed.
        before: Cost of the network before pruning, where filters are removed.
        after: Cost after pruning.
        weights: The weights of its conv and linear layers, where rules prune.
        part: Name of the part that the costs are of; empty for all of it.
    """

    layers: tuple[LayerPreview, ...] = ()
    before: Budget | None = None
    after: Budget | None = None
    weights: tuple[WeightPreview, ...] = ()
    part: str = ""

    @property
    def share(self) -> float:
        """Share of all elements of ``weights`` that is removed or zero at the end."""
        total = sum(weight.size for weight in self.weights)
        return 1 - sum(weight.left for weight in self.weights) / total if total else 0.0

    def folded(self) -> PruningPreview:
        """Return the preview of a deep network with one row for all layers that fare alike.

        Example:
            >>> layers = [LayerPreview(f"stage.{i}", filters=8, kept=4) for i in range(20)]
            >>> print(PruningPreview(tuple(layers), Budget(9, 9), Budget(5, 5)).folded())
            layer                   filters    kept  cannot be removed
            stage.0 and 19 like it        8       4
            parameters: 9 to 5 (44.4% removed)
            MACs of one example: 9 to 5 (44.4% removed)
        """
        if len(self.layers) <= MOST_ROWS:
            return self
        alike: dict[object, list[LayerPreview]] = {}
        for layer in self.layers:
            causes = tuple(reason.partition(" (")[0] for reason in layer.reasons)
            alike.setdefault((layer.filters, layer.kept, layer.fixed, causes), []).append(layer)
        rows = [
            replace(first, name=f"{first.name} and {len(more)} like it" if more else first.name)
            for first, *more in alike.values()
        ]
        return replace(self, layers=tuple(rows))

    def __str__(self) -> str:
        lines: list[str] = []
        if self.weights or self.before is None:
            lines += self._weight_lines()
        if self.before is not None and self.after is not None:
            lines += [*self._layer_lines(), *self._cost_lines(self.before, self.after)]
        return "\n".join(lines)

    def _weight_lines(self) -> Iterator[str]:
        width = max([6, *(len(weight.name) for weight in self.weights)])
        yield f"{'weight':{width}}      size      left  loses    ratio  rule"
        for weight in self.weights:
            rule = weight.rule
            ratio = "" if rule is None or rule.ratio is None else f"{float(rule.ratio):g}"
            place = "no rule matches" if rule is None else rule.place
            row = (
                f"{weight.name:{width}} {weight.size:9,d} {weight.left:9,d}  "
                f"{weight.granularity:8} {ratio:>5}  {place}"
            )
            yield row.rstrip()
        yield f"{self.share:.1%} of these weights will be pruned"

    def _layer_lines(self) -> Iterator[str]:
        width = max([5, *(len(layer.name) for layer in self.layers)])
        yield f"{'layer':{width}}  filters    kept  cannot be removed"
        for layer in self.layers:
            why = f"{layer.fixed}: {'; '.join(layer.reasons)}" if layer.reasons else ""
            row = f"{layer.name:{width}}  {layer.filters:7d} {layer.kept:7d}  {why}"
            yield row.rstrip()

    def _cost_lines(self, before: Budget, after: Budget) -> Iterator[str]:
        of = f" of {self.part}" if self.part else ""
        without = f", without {', '.join(before.uncounted)}" if before.uncounted else ""
        rows = (
            (f"parameters{of}", before.parameters, after.parameters),
            (f"MACs of one example{without}", before.macs, after.macs),
        )
        for title, old, new in rows:
            share = f" ({1 - new / old:.1%} removed)" if old else ""
            yield f"{title}: {old:,} to {new:,}{share}"
