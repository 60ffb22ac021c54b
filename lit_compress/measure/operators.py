"""Counting the operators of PyTorch that multiply, and naming those that cannot be counted."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, _FlopCounterMode

Shape = Sequence[int]

#: Names of torch's operators that multiply matrices, by their parts between underscores.
_MULTIPLY = re.compile(
    r"(?:^|_)(?:\w*mm|\w*mv|matmul|linear|attention|transformer|conv(?:\dd)?|convolution"
    r"|lstm|gru|rnn|bilinear|trilinear|euclidean|fft_[cr]2[cr])(?:_|$)"
)
#: These match, and multiply no matrices; a cell's gates are made by products of their own.
_PLAIN = re.compile(r"upsample|_thnn_fused_\w+_cell|flatten_weight|reorder|_linear_combination")
#: Decompositions and solvers. Norms, cross products and checks multiply no matrices.
_SOLVES = re.compile(r"linalg_(?!\w*norm|_powsum|cross|check_errors|diagonal|vander)")
#: Libraries whose operators multiply if their name says so. Others are not known.
KNOWN_LIBRARIES = ("aten", "prim", "prims", "torchvision", "quantized_decomposed")


#: Norms multiply no matrices, and to take them apart takes longer than to compute them.
_NORMS = (
    "native_batch_norm",
    "_native_batch_norm_legit",
    "_native_batch_norm_legit_no_training",
    "native_group_norm",
    "native_layer_norm",
)


class ProductCounter(FlopCounterMode):
    """Counts the operations of products, and records the operators that it has no formula for.

    Attributes:
        uncounted: Names of operators that multiply, or may, and were not counted.

    Example:
        >>> with ProductCounter() as counter:
        ...     out = torch.mv(torch.ones(3, 4), torch.ones(4))
        >>> counter.get_total_flops(), counter.uncounted
        (24, {})
    """

    def __init__(self) -> None:
        super().__init__(display=False, custom_mapping=dict(formulas()))
        self.uncounted: dict[str, None] = {}
        self._latest: object = None

    @contextmanager
    def in_total(self) -> Iterator[None]:
        """Count in total alone, until the end of the block: what each module takes costs time."""
        with _Remembering(self):
            yield

    def ran_whole(self, func_packet: object) -> bool:
        """Tell whether the latest operator ran without being decomposed."""
        return self._latest is func_packet

    def count(self, func_packet: Any, out: Any, args: Any, kwargs: Any) -> Any:
        """Count an operator that has run; return its result."""
        return self._count_flops(func_packet, out, args, kwargs)

    def _count_flops(self, func_packet: Any, out: Any, args: Any, kwargs: Any) -> Any:
        self._latest = func_packet
        name = getattr(func_packet, "_qualified_op_name", "")
        if func_packet not in self.flop_registry and may_multiply(name):
            self.uncounted[name.removeprefix("aten::")] = None
        return super()._count_flops(func_packet, out, args, kwargs)  # type: ignore[no-untyped-call]


class _Remembering(_FlopCounterMode):
    """Does not ask again whether an operator is made of others, if it was not at its first call."""

    counter: ProductCounter

    def __init__(self, counter: ProductCounter) -> None:
        super().__init__(counter)
        packets = [getattr(torch.ops.aten, name, None) for name in _NORMS]
        #: By operator, whether it is counted.
        self._whole: dict[object, bool] = {
            getattr(packet, overload): False
            for packet in packets
            if packet is not None
            for overload in packet.overloads()
        }

    def __torch_dispatch__(
        self,
        func: Any,
        types: Collection[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        counted = self._whole.get(func)
        if counted is None:
            out = super().__torch_dispatch__(func, types, args, kwargs)  # type: ignore[no-untyped-call]
            packet = getattr(func, "overloadpacket", None)
            if out is not NotImplemented and self.counter.ran_whole(packet):
                self._whole[func] = packet in self.counter.flop_registry
            return out
        out = func(*args, **kwargs)
        return self.counter.count(func.overloadpacket, out, args, kwargs) if counted else out


def may_multiply(operator: str) -> bool:
    """Tell whether an operator multiplies matrices, as far as its name says it.

    Args:
        operator: Name of the operator with its library. One of an unknown library may multiply.

    Example:
        >>> [may_multiply(name) for name in ("aten::_int_mm", "aten::relu", "theirs::scan")]
        [True, False, True]
    """
    library, _, name = operator.rpartition("::")
    if library not in KNOWN_LIBRARIES:
        return bool(library)
    multiplies = _MULTIPLY.search(name) and not _PLAIN.search(name)
    return bool(multiplies or _SOLVES.search(name))


def formulas() -> Mapping[Any, Callable[..., int]]:
    """Return the operations of operators that FlopCounterMode does not know, by operator.

    A formula takes the arguments of the operator, with shapes in the place of tensors.
    """
    aten = torch.ops.aten
    known = {**dict.fromkeys(_ATTENTIONS, _attention), **_FORMULAS}
    return {getattr(aten, name): count for name, count in known.items() if hasattr(aten, name)}


def _attention(query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    """Count queries times keys, and weights times values; heads may share keys and values."""
    return 2 * prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _layer_of_attention(
    query: Shape, key: Shape, value: Shape, width: int, *_: Any, **__: Any
) -> int:
    """Count an attention with its four projections."""
    rows = 2 * prod(query[:-1]) + prod(key[:-1]) + prod(value[:-1])
    return 2 * rows * width**2 + 4 * prod(query[:-1]) * key[-2] * width


def _encoder_layer(source: Shape, width: int, *args: Any, **_: Any) -> int:
    """Count an attention and the two layers after it; the weight of the first is argument 14."""
    hidden = int(args[12][0])
    attention = _layer_of_attention(source, source, source, width)
    return attention + 4 * prod(source[:-1]) * width * hidden


def _product(left: Shape, right: Shape, *_: Any, **__: Any) -> int:
    return 2 * prod(left) * (right[-1] if len(right) > 1 else 1)


def _added_product(_: Shape, left: Shape, right: Shape, *__: Any, **___: Any) -> int:
    return _product(left, right)


def _bilinear(left: Shape, weight: Shape, right: Shape, *_: Any, **__: Any) -> int:
    """Count the first input times the weight, and the result times the second input."""
    outputs, _inputs, others = weight
    return 2 * prod(left[:-1]) * outputs * others * (left[-1] + 1)


def _one_layer(inputs: Shape, *weights: Shape, **_: Any) -> int:
    return 2 * prod(inputs[:-1]) * sum(map(prod, weights[:2]))


def _all_layers(inputs: Shape, weights: Sequence[Shape], *_: Any, **__: Any) -> int:
    return 2 * prod(inputs[:-1]) * sum(prod(shape) for shape in weights if len(shape) == 2)


#: Fused attentions, one for each kind of device. Torch's own formulas of three of them do not allow
#: that heads share keys and values.
_ATTENTIONS = (
    "_scaled_dot_product_attention_math_for_mps",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_fused_attention_overrideable",
)
_FORMULAS: Mapping[str, Callable[..., int]] = {
    "_addmm_activation": _added_product,
    "_cudnn_rnn": _all_layers,
    "_int_mm": _product,
    "_native_multi_head_attention": _layer_of_attention,
    "_transformer_encoder_layer_fwd": _encoder_layer,
    "_trilinear": _bilinear,
    "addbmm": _added_product,
    "addbmm_": _added_product,
    "addmm_": _added_product,
    "addmv": _added_product,
    "addmv_": _added_product,
    "baddbmm_": _added_product,
    "mkldnn_rnn_layer": _one_layer,
    "mv": _product,
}
