"""Count the multiply-accumulates of an ONNX file, from its graph and the shapes of one run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from lit_compress.benchmark.limit import Kind
from lit_compress.files.onnx_graph import Graph, Node, output_names, read_graph, with_outputs
from lit_compress.files.reading import short

#: Domains of ONNX's own operators.
STANDARD = ("", "ai.onnx")
#: Operators of ONNX that multiply, and whose products are not counted here.
UNCOUNTED = frozenset({"Attention", "DeformConv", "Einsum", "STFT", "DFT"})
#: Operators of ONNX Runtime that multiply no matrices. All others of its own are not counted.
PLAIN = frozenset(
    {"DequantizeLinear", "QuantizeLinear", "Gelu", "FastGelu", "QuickGelu", "BiasGelu"}
    | {"LayerNormalization", "SkipLayerNormalization", "QLinearAdd", "QLinearMul"}
    | {"QLinearConcat", "QLinearGlobalAveragePool", "QLinearAveragePool", "QLinearLeakyRelu"}
    | {"QLinearSigmoid", "QLinearSoftmax", "NhwcMaxPool"}
)


@dataclass(frozen=True)
class Work:
    """Multiply-accumulates (MACs) of one example, by the numbers that are multiplied.

    Attributes:
        int8: MACs of whole numbers of 8 bits.
        float32: MACs of floating-point numbers.

    Example:
        >>> Work(int8=900, float32=100).total
        1000
    """

    int8: int
    float32: int

    @property
    def total(self) -> int:
        """All MACs."""
        return self.int8 + self.float32

    @property
    def by_kind(self) -> dict[Kind, int]:
        """The MACs by the numbers that are multiplied."""
        return {"int8": self.int8, "float32": self.float32}


class UncountedError(ValueError):
    """The MACs of a file cannot be counted; the message says why."""


@dataclass(frozen=True)
class _Layer:
    """How to count an operator.

    Attributes:
        data: Place of its input.
        weight: Place of its weight, or of the second factor.
        count: Takes the shapes of input, weight and output, and returns the MACs.
        int8: Whether the operator multiplies whole numbers itself.
    """

    data: int
    weight: int
    count: Callable[[Sequence[int], Sequence[int], Sequence[int]], int]
    int8: bool = False


def _conv(_: Sequence[int], weight: Sequence[int], output: Sequence[int]) -> int:
    return prod(output) * prod(weight[1:])


def _transposed(data: Sequence[int], weight: Sequence[int], _: Sequence[int]) -> int:
    return prod(data) * prod(weight[1:])


def _matmul(data: Sequence[int], _: Sequence[int], output: Sequence[int]) -> int:
    return prod(output) * data[-1]


def _gemm(data: Sequence[int], _: Sequence[int], output: Sequence[int]) -> int:
    return prod(data) * output[-1]


LAYERS: Mapping[str, _Layer] = {
    "Conv": _Layer(0, 1, _conv),
    "ConvTranspose": _Layer(0, 1, _transposed),
    "MatMul": _Layer(0, 1, _matmul),
    "Gemm": _Layer(0, 1, _gemm),
    "ConvInteger": _Layer(0, 1, _conv, int8=True),
    "MatMulInteger": _Layer(0, 1, _matmul, int8=True),
    "QLinearConv": _Layer(0, 3, _conv, int8=True),
    "QLinearMatMul": _Layer(0, 3, _matmul, int8=True),
}
#: Recurrent layers: their two weights are used at each step of each sequence.
RECURRENT = ("LSTM", "GRU", "RNN")


def count_work(content: bytes, inputs: Sequence[np.ndarray], examples: int) -> Work:
    """Return the MACs of an ONNX file: of convolutions, matrix products and recurrent layers.

    The file is run once without optimisations. The shapes are those of that run.

    Args:
        content: Content of the file.
        inputs: One array per input.
        examples: Number of examples in the inputs.

    Raises:
        UncountedError: If the file has an operator that multiplies and is not known, computes in
            float64, or does not run.

    Example:
        >>> import numpy as np, onnx.parser
        >>> model = onnx.parser.parse_model('''
        ...     <ir_version: 10, opset_import: ["": 20]>
        ...     net (float[batch, 2] x, float[2, 5] w) => (float[batch, 5] y) { y = MatMul(x, w) }
        ... ''')
        >>> arrays = [np.ones((3, 2), np.float32), np.ones((2, 5), np.float32)]
        >>> count_work(model.SerializeToString(), arrays, examples=3)
        Work(int8=0, float32=10)
    """
    graph = read_graph(content)
    layers = [node for node in graph.nodes if _multiplies(node)]
    shapes = _shapes(content, graph, layers, inputs)
    int8 = float32 = 0
    for node in layers:
        macs, small = _macs(graph, node, shapes)
        int8, float32 = (int8 + macs, float32) if small else (int8, float32 + macs)
    return Work(round(int8 / examples), round(float32 / examples))


def _multiplies(node: Node) -> bool:
    """Tell whether an operator is counted; refuse one that should be and cannot."""
    standard = node.domain in STANDARD
    if node.operator in UNCOUNTED or (not standard and node.operator not in PLAIN):
        raise UncountedError(f"the MACs of its operator {node.operator[:40]} are not counted")
    return standard and (node.operator in LAYERS or node.operator in RECURRENT)


def _shapes(
    content: bytes, graph: Graph, layers: Sequence[Node], inputs: Sequence[np.ndarray]
) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the stored tensors, the inputs, and what the layers read and give."""
    import onnxruntime

    known = {name: stored.shape for name, stored in graph.stored.items()}
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4  # what does not run here is an answer, not an error
    there = set(output_names(content))
    names = [name for node in layers for name in (*node.inputs, node.outputs[0])]
    wanted = [n for n in dict.fromkeys(names) if n in graph.makers and n not in known]
    more = with_outputs(content, [name for name in wanted if name not in there])
    try:
        session = onnxruntime.InferenceSession(more, options, providers=["CPUExecutionProvider"])
        given = [found.name for found in session.get_inputs()]
        arrays = dict(zip(given, inputs, strict=True))
        found = session.run(wanted, arrays) if wanted else []
    except Exception as error:  # ONNX Runtime's exceptions have no common base class
        raise UncountedError(f"it does not run without optimisations ({short(error)})") from error
    if any(array.dtype == np.float64 for array in found):
        raise UncountedError("it computes in float64, for which no limit is measured")
    known |= {name: array.shape for name, array in arrays.items()}
    return known | {name: array.shape for name, array in zip(wanted, found, strict=True)}


def _macs(graph: Graph, node: Node, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, bool]:
    """Return the MACs of an operator, and whether they are of whole numbers."""
    if node.operator in RECURRENT:
        steps, batch = shapes[node.inputs[0]][:2]
        return steps * batch * sum(prod(shapes[name]) for name in node.inputs[1:3]), False
    layer = LAYERS[node.operator]
    data, weight = node.inputs[layer.data], node.inputs[layer.weight]
    small = layer.int8 or (graph.is_quantised(data) and graph.is_quantised(weight))
    return layer.count(shapes[data], shapes[weight], shapes[node.outputs[0]]), small
