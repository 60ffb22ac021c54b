"""A call gives its arguments by position or by name, and its tensors wherever they are."""

from __future__ import annotations

from typing import Any

import torch

from lit_compress.pruning.channels.tracing.records import Call, Recording


def call(*args: Any, out: Any = None, **kwargs: Any) -> Call:
    return Call("sum", torch.sum, args, kwargs, out, reason=lambda _: None)  # type: ignore


def test_an_argument_is_found_by_position_and_by_name() -> None:
    one = torch.ones(2)
    assert call(one, 3).argument(1, "dim") == 3
    assert call(one, dim=4).argument(1, "dim") == 4
    assert call(one).argument(1, "dim", default=5) == 5
    assert call(one).argument(1, "dim") is None


def test_tensors_are_found_inside_of_what_holds_them() -> None:
    one, two, three = torch.ones(1), torch.ones(2), torch.ones(3)
    found = call([one, (2, two)], key={"a": three}, out={"x": [one], "y": 7})
    assert [len(tensor) for tensor in found.tensors()] == [1, 2, 3]
    assert [len(tensor) for tensor in found.results()] == [1]


def test_recordings_do_not_share_what_they_record() -> None:
    one, other = Recording(), Recording()
    one.names.append("add")
    one.seen.add("weight")
    assert not other.names
    assert not other.seen
