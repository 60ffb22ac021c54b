"""The graph of an int8 file as a function of the weights that are trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node

from lit_compress.quantization.operations import aten
from lit_compress.quantization.rewrites.norms import FoldedNorm
from lit_compress.quantization.training.rounding import round_activation
from lit_compress.quantization.training.weights import FileWeights, Source

#: Random operations that go on in training, and the modules that do the same.
DROPOUTS: dict[Any, type[nn.Module]] = {
    aten.dropout.default: nn.Dropout,
    aten.dropout_.default: nn.Dropout,
    aten.feature_dropout.default: nn.Dropout2d,
    aten.alpha_dropout.default: nn.AlphaDropout,
}


class FakeQuantizedGraph:
    """Runs a network as its int8 file does, on weights that are trained.

    The graph is that of the file: activations are rounded where the file rounds them, with its
    scales and zero points, and norms are folded with the statistics that they have. Nothing of the
    network is copied or changed, so its optimizer and its checkpoints go on.

    Args:
        prepared: The graph with an observer where something is quantised.
        folded: The norms that were folded into its layers.
        factors: What equalization multiplies weights with.

    Attributes:
        dropouts: The number of dropouts that go on in training.
    """

    def __init__(
        self, prepared: GraphModule, folded: Sequence[FoldedNorm], factors: Mapping[str, Tensor]
    ) -> None:
        self._prepared = prepared
        self._sources = _sources(prepared)
        self.dropouts = 0
        names = {source.name for source in self._sources.values()}
        names |= {name for norm in folded for name in _names(norm)} - {n.new_bias for n in folded}
        constants = {name: _tensor(prepared, name) for name in names if _has(prepared, name)}
        self._weights = FileWeights(
            dict.fromkeys(self._sources.values()), folded, factors, constants
        )
        self._rounded, self._float = self._built(True), self._built(False)

    def __call__(
        self,
        trained: Mapping[str, Tensor],
        inputs: Sequence[Tensor],
        training: bool = False,
        rounded: bool = True,
    ) -> tuple[Tensor, ...]:
        """Return the outputs.

        Args:
            trained: By name, the parameters and buffers of the network.
            inputs: The inputs of the network.
            training: Whether dropout is on.
            rounded: Whether anything is quantised. Without, the outputs are those of the network.
        """
        graph = (self._rounded if rounded else self._float).train(training)
        found: tuple[Tensor, ...] = graph(*self._weights.of(trained, rounded), *inputs)
        return found

    def _built(self, rounded: bool) -> GraphModule:
        """Return a graph that takes the weights, and then the inputs."""
        graph, modules = Graph(), nn.Module()
        taken = {
            source: graph.placeholder(f"weight_{index}")
            for index, source in enumerate(self._weights.sources)
        }
        new: dict[Node, Any] = {node: taken[source] for node, source in self._sources.items()}
        self.dropouts = 0
        for node in self._prepared.graph.nodes:
            if node in new or node.op == "get_attr":
                continue
            if node.op == "call_module":
                value = new[node.args[0]]
                arguments = (value, *_range(self._prepared, node))
                new[node] = graph.call_function(round_activation, arguments) if rounded else value
            elif node.target in DROPOUTS:
                name = f"dropout_{self.dropouts}"
                modules.add_module(name, DROPOUTS[node.target](node.args[1]))
                new[node] = graph.call_module(name, (new[node.args[0]],))
                self.dropouts += 1
            else:
                new[node] = graph.node_copy(node, lambda source: new[source])
        return GraphModule(modules, graph)


def _sources(prepared: GraphModule) -> dict[Node, Source]:
    """Return the tensors that a graph reads, by node: rounded ones by that of their observer."""
    found: dict[Node, Source] = {}
    for node in prepared.graph.nodes:
        if node.op == "get_attr":
            if any(user.op != "call_module" for user in node.users):
                found[node] = Source(str(node.target))
        elif node.op == "call_module" and node.args[0].op == "get_attr":
            observer: Any = prepared.get_submodule(str(node.target))
            name = str(node.args[0].target)
            found[node] = Source(name, observer.ch_axis, observer.quant_max)
    return found


def _range(prepared: GraphModule, node: Node) -> tuple[float, int]:
    observer: Any = prepared.get_submodule(str(node.target))
    scale, zero_point = observer.calculate_qparams()
    return float(scale), int(zero_point)


def _names(norm: FoldedNorm) -> list[str]:
    names = (norm.weight, norm.bias, norm.scale, norm.shift, norm.mean, norm.variance)
    return [name for name in names if name is not None]


def _has(graph: GraphModule, name: str) -> bool:
    owner, _, attribute = name.rpartition(".")
    try:
        return isinstance(getattr(graph.get_submodule(owner), attribute, None), Tensor)
    except AttributeError:
        return False


def _tensor(graph: GraphModule, name: str) -> Tensor:
    found: Tensor = attrgetter(name)(graph).detach()
    return found
