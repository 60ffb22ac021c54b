"""Measure the most multiply-accumulates a second that this machine does in a matrix product."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Literal

import numpy as np

from lit_compress.files.onnx_graph import GRAPH, INITIALIZER, NODE, OUTPUT
from lit_compress.files.onnx_wire import encoded
from lit_compress.runtimes.interface import Runtime
from lit_compress.runtimes.onnx import open_engine
from lit_compress.timing.in_turn import Runner

Kind = Literal["int8", "float32"]
#: Rows and columns of the square matrices.
SIZES = (512, 1024, 2048)
#: Seconds that each size is measured for, and after which no larger one is tried.
SECONDS, ENOUGH = 0.3, 0.15
#: Fewest calls of each size.
CALLS = 5
# ONNX's numbers of types, and the operator set: 13 is the first with scales by channel.
_FLOAT, _UINT8, _INT8, _IR, _OPSET = 1, 2, 3, 8, 13


@dataclass(frozen=True)
class Limit:
    """What this machine does at most, in one runtime with a number of threads.

    Attributes:
        runtime: The runtime.
        threads: Number of threads.
        kind: The numbers that are multiplied: ``int8`` or ``float32``.
        macs_per_second: Multiply-accumulates a second in the fastest product of large matrices.

    Example:
        >>> print(Limit("onnxruntime", 1, "int8", 4.2e11))
        int8, onnxruntime, 1 thread: 420 GMAC/s
    """

    runtime: str
    threads: int
    kind: Kind
    macs_per_second: float

    def __str__(self) -> str:
        threads = f"{self.threads} thread" + ("s" if self.threads > 1 else "")
        return f"{self.kind}, {self.runtime}, {threads}: {self.macs_per_second / 1e9:.3g} GMAC/s"


def runtime_rate(runtime: Runtime, threads: int, kind: Kind) -> float:
    """Return the most multiply-accumulates a second that a runtime does in a matrix product.

    Args:
        runtime: The runtime.
        threads: Number of its threads.
        kind: The numbers that are multiplied.

    Raises:
        ArtifactError: If the runtime is not installed.
    """

    def product(size: int) -> Runner:
        engine = open_engine("a matrix product", runtime, threads, product_model(size, kind))
        (expected,) = engine.inputs
        ones = [np.ones(expected.shape, expected.dtype)]
        return lambda: engine.run(ones)

    return best_rate(product)


def best_rate(product: Callable[[int], Runner]) -> float:
    """Return the most multiply-accumulates a second, over several sizes of matrices.

    Args:
        product: Takes the size, and returns a function that multiplies two square matrices.
    """
    best = 0.0
    for size in SIZES:
        seconds = _fastest(product(size))
        best = max(best, size**3 / seconds)
        if seconds > ENOUGH:
            break
    return best


def product_model(size: int, kind: Kind) -> bytes:
    """Return an ONNX file that multiplies its input by a stored square matrix.

    The product of int8 is written as artefacts are: between quantise/dequantise pairs.

    Args:
        size: Rows and columns of the matrices.
        kind: The numbers that are multiplied.
    """
    random = np.random.default_rng(0)
    if kind == "float32":
        weight = random.standard_normal((size, size), np.float32)
        nodes = [_node("MatMul", ("x", "w"), "y")]
        stored = [_tensor("w", weight, _FLOAT)]
    else:
        weight = random.integers(-127, 128, (size, size)).astype(np.int8)
        nodes = [
            _node("DequantizeLinear", ("x", "step", "middle"), "x_float"),
            _node("DequantizeLinear", ("w", "step", "zero"), "w_float"),
            _node("MatMul", ("x_float", "w_float"), "y_float"),
            _node("QuantizeLinear", ("y_float", "coarse", "middle"), "y"),
        ]
        stored = [
            _tensor("w", weight, _INT8),
            _tensor("step", np.array(0.01, np.float32), _FLOAT),
            _tensor("coarse", np.array(1, np.float32), _FLOAT),
            _tensor("middle", np.array(128, np.uint8), _UINT8),
            _tensor("zero", np.array(0, np.int8), _INT8),
        ]
    outside = _FLOAT if kind == "float32" else _UINT8
    graph = b"".join(
        [
            *(encoded(NODE, node) for node in nodes),
            encoded(2, "product"),
            *(encoded(INITIALIZER, tensor) for tensor in stored),
            encoded(11, _value("x", outside, size)),
            encoded(OUTPUT, _value("y", outside, size)),
        ]
    )
    return encoded(1, _IR) + encoded(8, encoded(2, _OPSET)) + encoded(GRAPH, graph)


def _fastest(run: Runner) -> float:
    """Return the seconds of the fastest call."""
    run()
    start, count, best = perf_counter(), 0, float("inf")
    while count < CALLS or perf_counter() - start < SECONDS:
        before = perf_counter()
        run()
        best = min(best, perf_counter() - before)
        count += 1
    return max(best, 1e-9)


def _node(operator: str, inputs: tuple[str, ...], output: str) -> bytes:
    names = b"".join(encoded(1, name) for name in inputs)
    return names + encoded(2, output) + encoded(4, operator)


def _tensor(name: str, array: np.ndarray, kind: int) -> bytes:
    sizes = b"".join(encoded(1, size) for size in array.shape)
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return sizes + encoded(2, kind) + encoded(8, name) + encoded(9, little.tobytes())


def _value(name: str, kind: int, size: int) -> bytes:
    sizes = b"".join(encoded(1, encoded(1, size)) for _ in range(2))
    return encoded(1, name) + encoded(2, encoded(1, encoded(1, kind) + encoded(2, sizes)))
