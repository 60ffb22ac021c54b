"""Run a calibrated graph in float, and note what quantising each tensor would add to it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node
from torch.utils._pytree import tree_leaves

from lit_compress.quantization.layer_noise.sources import is_weight, observed
from lit_compress.quantization.observers import fake_quantize
from lit_compress.quantization.operations import operation_name

#: Operations whose gradient is zero although they change with their input.
STEPS = {"round", "floor", "ceil", "trunc", "fix", "sign", "sgn", "heaviside"}


class NotDifferentiableError(Exception):
    """A graph does not have gradients everywhere: it is run for each layer instead."""


class Errors(Interpreter):
    """Runs a graph with observers in float, with gradients.

    The error of an activation is that of its own rounding. The error of a weight is what its
    rounding changes in the output of its layer.

    Args:
        prepared: Graph with calibrated observers.

    Attributes:
        observers: For each error, the observer of the tensor that is rounded.
        points: The values that the errors are added to, with gradients.
        errors: The errors, each of the shape of its value.
        elements: Number of elements of all values.
        rows: Number of inputs.
    """

    def __init__(self, prepared: GraphModule) -> None:
        super().__init__(prepared)
        self.extra_traceback = False
        self._modules: dict[str, Any] = dict(prepared.named_modules(remove_duplicate=False))
        self._weights: dict[Node, Tensor] = {}

    def run(self, *inputs: Tensor, **_: Any) -> Any:
        """Return the outputs for a batch of inputs.

        Raises:
            NotDifferentiableError: If an operation has no gradient.
        """
        self.observers: list[Node] = []
        self.points: list[Tensor] = []
        self.errors: list[Tensor] = []
        self.elements = 0
        self.rows = len(inputs[0])
        return super().run(*inputs)

    def run_node(self, n: Node) -> Any:
        """Run one node, and note the error that quantising would cause there."""
        if n.op == "call_module":
            value = self._observed(n)
        else:
            value = super().run_node(n)
            if n.op == "call_function":
                _check_gradient(n, tree_leaves([self.env[one] for one in n.all_input_nodes]), value)
                for observer in n.all_input_nodes:
                    if observer in self._weights:
                        value = self._noted(observer, value, self._weight_error(n, observer, value))
            elif n.op == "get_attr" and isinstance(value, Tensor) and value.is_inference():
                value = value.clone()
        self.elements += sum(one.numel() for one in tree_leaves(value) if isinstance(one, Tensor))
        return value

    def _observed(self, observer: Node) -> Any:
        value: Any = self.env[observer.args[0]]  # type: ignore[index]
        with torch.no_grad():
            if is_weight(observer):
                rounded = fake_quantize(self._modules[str(observer.target)], value)
                self._weights[observer] = rounded
                return value
            if observed(observer)[1]:  # rounded already, to the same numbers
                return value
            error = fake_quantize(self._modules[str(observer.target)], value) - value
        return self._noted(observer, value, error)

    def _weight_error(self, layer: Node, observer: Node, value: Tensor) -> Tensor:
        """Return what quantising its weight changes in the output of a layer."""
        rounded = self._weights[observer]
        args, kwargs = torch.fx.node.map_arg(
            (layer.args, layer.kwargs),
            lambda node: rounded if node is observer else self.env[node],
        )
        operation: Any = layer.target
        with torch.no_grad():
            error: Tensor = operation(*args, **kwargs) - value
        return error

    def _noted(self, observer: Node, value: Tensor, error: Tensor) -> Tensor:
        """Return a value with a gradient of its own, to which an error is added."""
        point = value.view_as(value) if value.requires_grad else value.detach().requires_grad_()
        self.observers.append(observer)
        self.points.append(point)
        self.errors.append(error)
        return point


def _check_gradient(node: Node, inputs: list[Any], value: Any) -> None:
    """Check that the result of an operation has a gradient if what it reads has one."""
    if not any(isinstance(one, Tensor) and one.requires_grad for one in inputs):
        return
    name = operation_name(node)
    lost = isinstance(value, Tensor) and not value.requires_grad and node.users
    constant = name.endswith("_like") or name.startswith("new_")
    if name in STEPS or (lost and not constant):
        raise NotDifferentiableError
