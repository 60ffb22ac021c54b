"""Rounding weights so that the outputs of a layer change least, instead of each to its nearest.

Weights of one output are rounded one after the other, and what rounding one of them changes in the
outputs is made up for by those that follow, on the inputs that calibration saw: the aim of AdaRound
(Nagel et al. 2020, arXiv 2004.10568), reached in closed form as in OBQ and GPTQ (Frantar et al.
2022, arXiv 2208.11580 and 2210.17323). No labels are needed. A layer keeps the nearest numbers
where, on other inputs than those it was fitted to, they are better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node

from lit_compress.export.outputs import as_tensors
from lit_compress.export.signature import Batch, as_tuple, first_rows
from lit_compress.quantization.observers import fake_quantize
from lit_compress.quantization.operations import aten, is_parameter
from lit_compress.quantization.rewrites.biases import with_own_bias
from lit_compress.quantization.training.rounding import round_activation

#: Layers whose inputs can be written as rows, each of which gives one number of each output.
ROWS = {
    aten.linear.default,
    aten.conv1d.default,
    aten.conv2d.default,
    aten.conv1d.padding,
    aten.conv2d.padding,
}
#: Most inputs of one output: a matrix of their products must be inverted.
MOST_INPUTS = 5000
#: Rows of a batch that are taken of one layer; the rest are left out at random.
MOST_ROWS = 20_000
#: Inputs on which the network is judged.
JUDGED = 1024
#: Standard errors by which the error of an input must fall on average: less may be chance.
SURE = 3.0
#: Share of the mean square of inputs that is added to each.
DAMPING = 0.01
#: Share of the mean square that sums in float64 may be wrong by, and the least that is added.
ROUNDING, LEAST = 1e-8, 1e-30


def learn_rounding(prepared: GraphModule, batches: Sequence[Batch]) -> dict[str, Tensor]:
    """Return weights that are rounded so that the outputs of their layers change least.

    A layer is taken only if the outputs of the whole quantised network are nearer to those of the
    float network with it, on inputs that it was not fitted to where there are four batches or more.

    Args:
        prepared: Graph with calibrated observers; it is not changed.
        batches: Inputs of the network. Three of four are fitted to, the others judge.

    Returns:
        By name of a weight, its rounded value, where that is better than the nearest numbers.
    """
    every = [as_tuple(batch) for batch in batches]
    judging = every[3::4] or every
    fitted = [one for index, one in enumerate(every) if index % 4 != 3]
    layers = _layers(prepared)
    products = _Products(prepared, layers)
    with torch.no_grad():
        for batch in fitted:
            products.run(*batch)
        judge = _Judge(prepared, first_rows(judging, JUDGED))
        current: dict[str, Tensor] = {}
        for node, layer in layers.items():
            current |= layer.tensors(layer.nearest, products.of[node])
        best = judge.errors(current)
        found: dict[str, Tensor] = {}
        for node, layer in layers.items():
            rounded = layer.rounded(products.of[node])
            tried = current | layer.tensors(rounded, products.of[node])
            if _is_better(errors := judge.errors(tried), best):
                current, best = tried, errors
                found[layer.name] = rounded
    return found


def set_weights(prepared: GraphModule, weights: Mapping[str, Tensor]) -> None:
    """Give a graph other weights.

    Args:
        prepared: The graph; tensors that it shares with another are replaced, not changed.
        weights: By name.
    """
    for name, weight in weights.items():
        prefix, _, attribute = name.rpartition(".")
        setattr(prepared.get_submodule(prefix), attribute, nn.Parameter(weight, False))


@dataclass(frozen=True)
class _Layer:
    """A layer with a weight that is rounded.

    Attributes:
        name: Name of its weight.
        weight: Its weight; the outputs are along the first axis.
        nearest: Its weight, rounded to the nearest numbers.
        scale: The step of each output.
        largest: The largest number.
        groups: Number of its groups.
        input: The observer of its input.
        bias: Name and value of a bias of its own, which is corrected; None if it has none.
    """

    name: str
    weight: Tensor
    nearest: Tensor
    scale: Tensor
    largest: int
    groups: int
    input: Any
    bias: tuple[str, Tensor] | None

    def rounded(self, seen: _Inputs) -> Tensor:
        """Return the weight, rounded for some inputs.

        Args:
            seen: What the inputs were like.
        """
        rows = self._rows(self.weight)
        scale = self.scale.reshape(self.groups, -1).double()
        factor = seen.inverse_factor(centred=self.bias is not None)
        found = torch.empty_like(rows)
        for column in range(rows.shape[-1]):
            steps = (rows[..., column] / scale).round().clamp(-self.largest, self.largest)
            found[..., column] = steps * scale
            error = (rows[..., column] - found[..., column]) / factor[:, column, column, None]
            rows -= error[..., None] * factor[:, None, column]
        return found.reshape(self.weight.shape).to(self.weight.dtype)

    def tensors(self, rounded: Tensor, seen: _Inputs) -> dict[str, Tensor]:
        """Return a rounded weight, and the bias that goes with it, by name."""
        if self.bias is None:
            return {self.name: rounded}
        quantized, exact = seen.means
        shift = torch.einsum("goi,gi->go", self._rows(rounded), quantized)
        shift -= torch.einsum("goi,gi->go", self._rows(self.weight), exact)
        name, value = self.bias
        return {self.name: rounded, name: value - shift.flatten().to(value.dtype)}

    def _rows(self, weight: Tensor) -> Tensor:
        """Return a weight as a matrix for each group, of shape (group, output, input)."""
        return weight.reshape(self.groups, -1, weight[0].numel()).double()


class _Inputs:
    """Sums over the inputs of a layer, of shape (group, input) and (group, input, input)."""

    def __init__(self) -> None:
        self._count = 0
        self._sums: Any = 0.0
        self._exact: Any = 0.0
        self._products: Any = 0.0

    def add(self, quantized: Tensor, exact: Tensor) -> None:
        """Add rows of inputs, as they are when quantised and as they are in float."""
        self._count += quantized.shape[1]
        self._sums = self._sums + quantized.double().sum(1)
        self._exact = self._exact + exact.double().sum(1)
        self._products = self._products + quantized.double().mT @ quantized.double()

    @property
    def means(self) -> tuple[Tensor, Tensor]:
        """The means of the quantised inputs, and of those in float."""
        return self._sums / self._count, self._exact / self._count

    def inverse_factor(self, centred: bool) -> Tensor:
        """Return the upper triangular factor of the inverse of the mean products of two inputs.

        Args:
            centred: Whether products are those of the differences from the means.
        """
        products, mean = self._products / self._count, self.means[0]
        power = products.diagonal(dim1=1, dim2=2).mean(1)
        if centred:
            products = products - mean[..., None] * mean[:, None]
        spread = products.diagonal(dim1=1, dim2=2).mean(1)
        damping = (DAMPING * spread + ROUNDING * power).clamp(min=LEAST)
        identity = torch.eye(products.shape[-1], dtype=torch.float64)
        damped = products + damping[:, None, None] * identity
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
        found: Tensor = torch.linalg.cholesky(inverse, upper=True)
        return found


class _Products(Interpreter):
    """Runs that add up the products of each layer's inputs, as they are when quantised."""

    def __init__(self, prepared: GraphModule, layers: Mapping[Node, _Layer]) -> None:
        super().__init__(prepared)
        self.extra_traceback = False
        self._layers = layers
        self.of = {node: _Inputs() for node in layers}

    def run_node(self, n: Node) -> Any:
        """Run one node; an observer gives what it got."""
        if n.op == "call_module":
            return self.env[n.args[0]]  # type: ignore[index]
        if n in self._layers:
            layer = self._layers[n]
            (image, weight, *_), _ = self.fetch_args_kwargs_from_env(n)
            quantized = _rows(n, fake_quantize(layer.input, image), weight, layer.groups)
            self.of[n].add(quantized, _rows(n, image, weight, layer.groups))
        return super().run_node(n)


class _Judge(Interpreter):
    """Runs a quantised graph with other weights, and compares it with the float one.

    Args:
        prepared: Graph with calibrated observers.
        inputs: What it is run on.
    """

    def __init__(self, prepared: GraphModule, inputs: tuple[Tensor, ...]) -> None:
        super().__init__(prepared)
        self.extra_traceback = False
        self._inputs = inputs
        self._tensors: Mapping[str, Tensor] | None = None
        self._ranges: dict[Node, tuple[float, int]] = {}
        self._nearest: dict[Node, Tensor] = {}
        for node in prepared.graph.nodes:
            if node.op == "call_module" and is_parameter(node.args[0]):
                observer = prepared.get_submodule(str(node.target))
                weight = attrgetter(str(node.args[0].target))(prepared)
                self._nearest[node] = fake_quantize(observer, weight.detach())
            elif node.op == "call_module":
                activation: Any = prepared.get_submodule(str(node.target))
                scale, zero = activation.calculate_qparams()
                self._ranges[node] = float(scale), int(zero)
        self._float = [tensor.double() for tensor in as_tensors(self.run(*inputs))]

    def errors(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return the error of the outputs for each input: the square, as a share of the outputs'.

        Args:
            tensors: By name, rounded weights and biases; other weights have the nearest numbers.
        """
        self._tensors = tensors
        found = as_tensors(self.run(*self._inputs))
        errors = []
        for one, other in zip(self._float, found, strict=True):
            change = (one - other).square()
            rows = change.reshape(len(change), -1) if change.dim() else change.reshape(1, 1)
            errors.append(rows.sum(1) / one.square().sum().clamp(min=LEAST))
        same = len({len(rows) for rows in errors}) == 1
        return torch.stack(errors).sum(0) if same else torch.cat(errors)

    def run_node(self, n: Node) -> Any:
        """Run one node; an observer quantises, but in the float run."""
        tensors = self._tensors
        if tensors is not None and n.op == "get_attr" and str(n.target) in tensors:
            return tensors[str(n.target)]
        if n.op != "call_module":
            return super().run_node(n)
        source: Any = n.args[0]
        value = self.env[source]
        if tensors is None or (n in self._nearest and str(source.target) in tensors):
            return value
        if n in self._nearest:
            return self._nearest[n]
        return round_activation(value, *self._ranges[n])


def _is_better(errors: Tensor, than: Tensor) -> bool:
    """Tell whether the errors of inputs are smaller: their sum, and each on average."""
    if not bool(errors.sum() < than.sum()):
        return False
    change = torch.log(errors.clamp(min=LEAST) / than.clamp(min=LEAST))
    if len(change) < 2:
        return True
    return bool(change.mean() < -SURE * change.std() / len(change) ** 0.5)


def _rows(layer: Node, image: Tensor, weight: Tensor, groups: int) -> Tensor:
    """Return the inputs of a layer in rows, of shape (group, row, input); at most ``MOST_ROWS``."""
    if layer.target is aten.linear.default:
        rows = image.reshape(1, -1, image.shape[-1])
    else:
        rows = _patches(layer, image, weight, groups)
    if rows.shape[1] > MOST_ROWS:
        generator = torch.Generator().manual_seed(0)
        rows = rows[:, torch.randperm(rows.shape[1], generator=generator)[:MOST_ROWS]]
    return rows


def _patches(layer: Node, image: Tensor, weight: Tensor, groups: int) -> Tensor:
    """Return the patches under a convolution's kernel, of shape (group, row, input)."""
    kernel: Any = weight.shape[2:]
    stride, padding, dilation = (
        _each(argument(layer, position, default), len(kernel))
        for position, default in ((3, 1), (4, 0), (5, 1))
    )
    if image.dim() == len(kernel) + 1:
        image = image[None]
    if len(kernel) == 1:
        image, kernel = image[:, :, None], (1, *kernel)
        stride, padding, dilation = [1, *stride], [0, *padding], [1, *dilation]
    if layer.target in (aten.conv1d.padding, aten.conv2d.padding):
        total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        same = argument(layer, 4, "valid") == "same"
        sides = [side for one in reversed(total) for side in (one // 2, one - one // 2)]
        image, padding = nn.functional.pad(image, sides) if same else image, [0, 0]
    patches = nn.functional.unfold(
        image, tuple(kernel), tuple(dilation), tuple(padding), tuple(stride)
    )
    count, _, places = patches.shape
    grouped = patches.reshape(count, groups, -1, places).permute(1, 0, 3, 2)
    return grouped.reshape(groups, count * places, -1)


def argument(layer: Node, position: int, default: Any) -> Any:
    """Return an argument of a node by its position."""
    return layer.args[position] if len(layer.args) > position else default


def _each(value: Any, count: int) -> list[int]:
    """Return a value for each dimension; a word stands for none."""
    if isinstance(value, int):
        return [value] * count
    return [0] * count if isinstance(value, str) else list(value) * (count // len(value))


def _layers(prepared: GraphModule) -> dict[Node, _Layer]:
    """Return the quantised layers whose weights can be rounded so, by node."""
    weights = [node.args[1] for node in prepared.graph.nodes if node.target in ROWS]
    own = {node.name for node in with_own_bias(prepared)}
    found = {}
    for node in prepared.graph.nodes:
        if node.target not in ROWS or weights.count(node.args[1]) > 1:
            continue
        image, source = node.args[:2]
        if image.op != "call_module" or source.op != "call_module":
            continue
        if not is_parameter(source.args[0]) or len(source.args[0].users) > 1:
            continue
        weight = attrgetter(str(source.args[0].target))(prepared).detach()
        observer: Any = prepared.get_submodule(str(source.target))
        if weight[0].numel() <= MOST_INPUTS:
            found[node] = _Layer(
                str(source.args[0].target),
                weight,
                fake_quantize(observer, weight),
                observer.calculate_qparams()[0],
                observer.quant_max,
                argument(node, 6, 1) if node.target is not aten.linear.default else 1,
                prepared.get_submodule(str(image.target)),
                _bias(prepared, node) if node.name in own else None,
            )
    return found


def _bias(prepared: GraphModule, layer: Node) -> tuple[str, Tensor]:
    source: Any = layer.args[2]
    return str(source.target), attrgetter(str(source.target))(prepared).detach()
