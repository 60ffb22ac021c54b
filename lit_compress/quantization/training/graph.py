"""The graph of an int8 file as a function of the weights that are trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node

from lit_compress.quantization.operations import NORMS, WEIGHTED, aten, module_path
from lit_compress.quantization.rewrites.norms import FoldedNorm
from lit_compress.quantization.training.rounding import round_activation
from lit_compress.quantization.training.switches import Dropout, Norm, Switch
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
    scales and zero points, and norms are folded with the statistics that they have. In training,
    norms may still use the statistics of the batch: as each output channel has a scale of its own,
    a weight is rounded to the same numbers with and without the norm. Nothing of the network is
    copied, so its optimizer and its checkpoints go on.

    Args:
        prepared: The graph with an observer where something is quantised.
        folded: The norms that were folded into its layers.
        factors: What equalization multiplies weights with.

    Attributes:
        dropouts: What drops out in training.
    """

    def __init__(
        self, prepared: GraphModule, folded: Sequence[FoldedNorm], factors: Mapping[str, Tensor]
    ) -> None:
        self._prepared = prepared
        self._sources = _sources(prepared)
        self._norms = {norm.weight: norm for norm in folded}
        self.dropouts: list[Dropout] = []
        names = {source.name for source in self._sources.values()}
        constants = {name: _tensor(prepared, name) for name in names}
        self._weights = FileWeights(folded, factors, constants)
        self._rounded, self._float = self._built(), self._built(rounded=False)
        self._batched = self._built(batched=True)

    def __call__(
        self,
        trained: Mapping[str, Tensor],
        inputs: Sequence[Tensor],
        network: nn.Module | None = None,
        rounded: bool = True,
        batched: bool = False,
    ) -> tuple[Tensor, ...]:
        """Return the outputs.

        Args:
            trained: By name, the parameters and buffers of the network.
            inputs: The inputs of the network.
            network: The network, of which parts that are in training mode drop out and follow the
                batches. Default: all are in eval mode.
            rounded: Whether anything is quantised. Without, the outputs are those of the network.
            batched: Whether norms in training mode use the statistics of the batch, and their
                running statistics follow them.
        """
        built = self._batched if batched else self._rounded if rounded else self._float
        for switch in built.switches:
            switch.follow(network)
        weights = self._weights.of(built.sources, trained, rounded)
        found: tuple[Tensor, ...] = built.graph(*weights, *inputs)
        return found

    def _built(self, rounded: bool = True, batched: bool = False) -> _Built:
        """Return a graph that takes weights, and then the inputs."""
        normed = self._normed() if batched else {}
        sources = {node: source for node, source in self._sources.items() if _is_read(node, normed)}
        raw = [source for norm in normed.values() for source in norm.sources]
        every = tuple(dict.fromkeys([*sources.values(), *raw]))
        graph, modules = Graph(), nn.Module()
        taken = {source: graph.placeholder(f"weight_{at}") for at, source in enumerate(every)}
        new: dict[Node, Any] = {node: taken[source] for node, source in sources.items()}
        switches: list[Switch] = []

        def switched(switch: Switch, arguments: tuple[Any, ...]) -> Node:
            modules.add_module(f"switch_{len(switches)}", switch)
            switches.append(switch)
            return graph.call_module(f"switch_{len(switches) - 1}", arguments)

        for node in self._prepared.graph.nodes:
            if node in self._sources or node.op == "get_attr":
                continue
            if node.op == "call_module":
                value = new[node.args[0]]
                arguments = (value, *_range(self._prepared, node))
                new[node] = graph.call_function(round_activation, arguments) if rounded else value
            elif node.target in DROPOUTS:
                dropout = Dropout(module_path(node), DROPOUTS[node.target](node.args[1]))
                new[node] = switched(dropout, (new[node.args[0]],))
            elif node in normed:
                layer = normed[node]
                new[node] = switched(layer.norm, layer.inputs(graph, node, new, taken))
            elif batched and node.target in NORMS:
                image, scale, shift, mean, variance, _, momentum, epsilon, *_ = node.args
                norm = Norm(module_path(node), momentum, epsilon)
                nodes = (image, mean, variance, scale, shift)
                new[node] = switched(norm, tuple(one and new[one] for one in nodes))
            else:
                new[node] = graph.node_copy(node, lambda source: new[source])
        self.dropouts = [one for one in switches if isinstance(one, Dropout)]
        return _Built(GraphModule(modules, graph), every, tuple(switches))

    def _normed(self) -> dict[Node, _Normed]:
        """Return the layers that norms were folded into, with those."""
        found = {}
        for node in self._prepared.graph.nodes:
            weight = self._sources.get(node.args[1]) if node.target in WEIGHTED else None
            if weight is not None and weight.name in self._norms:
                found[node] = _Normed(self._norms[weight.name], weight)
        return found


@dataclass(frozen=True)
class _Built:
    """A graph, and the weights that it takes in front of its inputs."""

    graph: GraphModule
    sources: tuple[Source, ...]
    switches: tuple[Switch, ...]


class _Normed:
    """A layer and the norm behind it, with the statistics of the batch.

    Args:
        norm: The norm.
        weight: The weight of the layer, with the norm in it.
    """

    def __init__(self, norm: FoldedNorm, weight: Source) -> None:
        self.norm = Norm(norm.path, norm.momentum, norm.epsilon)
        self._weight = replace(weight, folded=False)
        names = (norm.bias, norm.mean, norm.variance, norm.scale, norm.shift)
        self._others = [None if name is None else Source(name, folded=False) for name in names]
        self.sources = [self._weight, *(one for one in self._others if one is not None)]

    def inputs(
        self, graph: Graph, layer: Node, new: Mapping[Node, Any], taken: Mapping[Source, Node]
    ) -> tuple[Any, ...]:
        """Add the layer to a graph, and return what the norm takes.

        Args:
            graph: The graph.
            layer: The layer in the graph of the file.
            new: The nodes of the graph, by those of the file's.
            taken: The nodes of the weights.
        """
        bias, *others = [None if one is None else taken[one] for one in self._others]
        image: Any = layer.args[0]
        operation: Any = layer.target
        arguments = (new[image], taken[self._weight], bias, *layer.args[3:])
        output = graph.call_function(operation, arguments, dict(layer.kwargs))
        return (output, *others)


def _is_read(node: Node, normed: Mapping[Node, Any]) -> bool:
    """Tell whether anything but layers with a norm of their own reads a tensor."""
    return any(user not in normed for user in node.users if user.op != "call_module")


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


def _tensor(graph: GraphModule, name: str) -> Tensor:
    found: Tensor = attrgetter(name)(graph).detach()
    return found
