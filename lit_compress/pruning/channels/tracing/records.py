"""What a trace records: calls, uses of the model's tensors, what computed tensors are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from torch import Tensor

from lit_compress.pruning.channels.tracing.calls import tensors_of
from lit_compress.pruning.channels.tracing.counts import Count
from lit_compress.pruning.channels.tracing.labels import Reason


@dataclass(frozen=True)
class Use:
    """Use of a model's tensor together with labelled channels.

    Attributes:
        tensor: Name of the parameter or buffer.
        dim: Dimension along which the labels lie.
        labels: One label for each index of the dimension.
        role: ``filter`` (the tensor makes the channels), ``depthwise`` (it has one filter for each
            channel), ``input`` (it reads the channels) or ``scale`` (it has one value for each
            channel: bias, norm, gate).
    """

    tensor: str
    dim: int
    labels: Tensor
    role: str


@dataclass(frozen=True)
class Split:
    """A reshape that splits a channel dimension into several.

    Attributes:
        twin: The twin of the result.
        free: The dimension that may shrink, unless an attention ties the channels along it.
        counts: By dimension, the attribute of a module that gives its size.
        reason: Why the channels of the other dimensions are tied.
    """

    twin: Tensor
    free: int
    counts: Mapping[int, Count]
    reason: Reason


@dataclass(frozen=True)
class Computed:
    """What a tensor is that is computed from the model's own parameters and buffers alone.

    Attributes:
        twins: By name and dimension of a parameter, the labels of its indices, as a twin of the
            computed tensor. Each dimension of a parameter has labels of its own.
        sources: Names of the parameters, the one with most elements first.
        normed: The dimensions of parameters over which a norm was taken: without some of their
            indices, all others have other values.
    """

    twins: Mapping[tuple[str, int], Tensor]
    sources: tuple[str, ...]
    normed: frozenset[tuple[str, int]] = frozenset()


@dataclass(frozen=True)
class Mixed:
    """A call whose result depends on all channels of its input, as the statistics of a norm do.

    Attributes:
        inputs: By tensor among its arguments, its twins.
        outputs: By tensor among its results, its twins.
    """

    inputs: tuple[tuple[Tensor, ...], ...]
    outputs: tuple[tuple[Tensor, ...], ...]


@dataclass(frozen=True)
class Read:
    """A call that reads channels with a weight.

    Attributes:
        argument: Position of the activation among the tensors of its arguments.
        dim: Dimension of its channels.
        labels: One label for each of them.
    """

    argument: int
    dim: int
    labels: Tensor


@dataclass(frozen=True)
class Multiplied:
    """A product of two activations, as in an attention.

    Attributes:
        macs: Its multiply-accumulates in this run.
        twins: Labels of what it multiplies or makes, one label for each of its parts.
    """

    macs: int
    twins: tuple[Tensor, ...]


@dataclass
class Call:
    """One torch call.

    Attributes:
        name: Name of the function, see :func:`call_name`.
        func: The function.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        out: Its result.
        reason: Makes a :class:`Reason` that names this call.
    """

    name: str
    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any
    reason: Callable[[str], Reason]

    def argument(self, index: int, name: str, default: Any = None) -> Any:
        """Return an argument by its position or its name."""
        if len(self.args) > index:
            return self.args[index]
        return self.kwargs.get(name, default)

    def __post_init__(self) -> None:
        self._tensors = tensors_of((self.args, self.kwargs))
        self._results = tensors_of(self.out)

    def tensors(self) -> list[Tensor]:
        """Return the tensors among the arguments."""
        return self._tensors

    def results(self) -> list[Tensor]:
        """Return the tensors in the result."""
        return self._results


@dataclass
class Recording:
    """Record of a traced run: how the model uses its own tensors.

    Attributes:
        uses: Uses by tensor name and dimension.
        positions: By weight name, the number of output positions where the weight is applied; a
            fraction of one where a part of the weight is.
            Positions times the size of the weight are its MACs in this run.
        products: The products of two activations.
        min_indices: By tensor name and dimension, the number of indices that must remain, where it
            is more than one.
        opaque: By tensor name, why the trace cannot follow a use of the tensor.
        widths: By name of a norm module without parameters and buffers, or of a whole number among
            the attributes of a module, the labels that it counts.
        seen: Names of the tensors that any call used.
        names: By number of the call, the name of its function.
        reads: By number of the call, what it reads with a weight.
        mixed: By number of the call, the calls that depend on all channels.
    """

    uses: dict[tuple[str, int], Use] = field(default_factory=dict)
    positions: dict[str, Fraction] = field(default_factory=dict)
    products: list[Multiplied] = field(default_factory=list)
    min_indices: dict[tuple[str, int], int] = field(default_factory=dict)
    opaque: dict[str, Reason] = field(default_factory=dict)
    widths: dict[str, Tensor] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    names: list[str] = field(default_factory=list)
    reads: dict[int, Read] = field(default_factory=dict)
    mixed: dict[int, Mixed] = field(default_factory=dict)
