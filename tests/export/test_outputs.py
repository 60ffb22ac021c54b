"""What a forward returns becomes a flat list of named tensors, and comes back."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from lit_compress.errors import ExportError
from lit_compress.export.outputs import FlatOutputs, Outputs, as_tensors

A, B = torch.ones(2), torch.zeros(3)
Pair = namedtuple("Pair", ["mean", "spread"])


@dataclass
class Result:
    logits: Tensor
    hidden: tuple[Tensor, ...] = ()
    loss: Tensor | None = None


@dataclass
class ModelOutput(OrderedDict):  # type: ignore[type-arg]
    """As Hugging Face's: a mapping of the fields that are not None."""

    logits: Tensor | None = None
    loss: Tensor | None = None

    def __post_init__(self) -> None:
        self.update({n: v for n, v in vars(self).items() if v is not None})


RESULTS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "tensor": (A, ("output",)),
    "tuple": ((A, B), ("output_0", "output_1")),
    "list of one": ([A], ("output_0",)),
    "dict": ({"out": A, "aux": B}, ("out", "aux")),
    "ordered": (OrderedDict(b=A, a=B), ("b", "a")),
    "named tuple": (Pair(A, B), ("mean", "spread")),
    "dataclass": (Result(A, (B, A)), ("logits", "hidden_0", "hidden_1")),
    "model output": (ModelOutput(logits=A), ("logits",)),
    "nested": ({"maps": [A, B], "n": 3, "more": None}, ("maps_0", "maps_1")),
    "odd keys": ({"a b": A, "a-b": B, 4: A}, ("a_b_0", "a_b_1", "output_4")),
}


@pytest.mark.parametrize(("result", "names"), RESULTS.values(), ids=RESULTS.keys())
def test_the_structure_comes_back(result: Any, names: tuple[str, ...]) -> None:
    outputs = Outputs.of(result)
    assert outputs.names == names
    tensors = outputs.tensors(result)
    doubled = outputs.structured([2 * tensor for tensor in tensors])
    assert type(doubled) is type(result)
    again = outputs.tensors(doubled)
    assert all(torch.equal(one, 2 * other) for one, other in zip(again, tensors, strict=True))
    assert torch.equal(A, torch.ones(2))


def test_what_is_no_tensor_is_kept() -> None:
    result = {"a": A, "n": 3, "deep": [None, (B, "x")]}
    back = Outputs.of(result).structured([B, A])
    assert back == {"a": B, "n": 3, "deep": [None, (A, "x")]}


structures = st.recursive(
    st.builds(lambda n: torch.full((n,), 1.0), st.integers(1, 3)) | st.none() | st.integers(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text("ab_-1", min_size=1, max_size=3), inner, max_size=3)
        | st.tuples(inner, inner)
    ),
    max_leaves=8,
)


@given(structures)
def test_names_are_distinct_and_tensors_come_back_in_order(result: Any) -> None:
    assume(any(isinstance(leaf, Tensor) for leaf in tree_leaves(result)))
    outputs = Outputs.of(result)
    assert len(set(outputs.names)) == len(outputs.names)
    numbered = [torch.tensor([float(i)]) for i in range(len(outputs.names))]
    assert [t.item() for t in outputs.tensors(outputs.structured(numbered))] == list(
        range(len(numbered))
    )


@pytest.mark.parametrize("result", [3, None, [], {}, {"a": "text"}, object()])
def test_a_result_without_tensors_is_refused(result: object) -> None:
    with pytest.raises(ExportError, match="forward of Linear must return tensors"):
        Outputs.of(result, nn.Linear(1, 1))


def test_another_structure_is_refused() -> None:
    outputs = Outputs.of((A, B))
    for other in ((A,), A, (A, B, A)):
        with pytest.raises(ExportError, match="in the first batch it returned 2"):
            outputs.tensors(other)


def test_a_tensor_that_is_returned_twice_is_two_outputs() -> None:
    class Same(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            y = x + 1
            return {"a": y, "b": y}

    network = Same()
    flat = FlatOutputs(network, Outputs.of(network(A)))
    program = torch.export.export(flat, (A,))
    assert len(set(program.graph_signature.user_outputs)) == 2
    assert len(as_tensors(program.module()(A))) == 2


def test_defaults_of_a_dataclass_are_kept() -> None:
    @dataclass
    class Held:
        a: Tensor
        notes: list[str] = field(default_factory=list)

    back = Outputs.of(Held(A, ["x"])).structured([B])
    assert back.notes == ["x"]


def test_fields_that_a_constructor_sets_itself_are_kept() -> None:
    @dataclass
    class Held:
        a: Tensor
        n: int = field(init=False, default=3)

    back = Outputs.of(Held(A)).structured([B])
    assert (back.n, back.a is B) == (3, True)


def test_complex_outputs_are_refused() -> None:
    with pytest.raises(ExportError, match="returns complex numbers"):
        Outputs.of((A, torch.ones(2, dtype=torch.complex64)), nn.Linear(1, 1))


def test_an_output_that_is_called_like_an_input_has_another_name() -> None:
    outputs = Outputs.of({"input": A, "": B}).distinct_from(("input", "mask"))
    assert outputs.names == ("input_output", "output")
