from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lit_compress.errors import ExportError
from lit_compress.export.signature import Flat, Signature, first_rows


class Network(nn.Module):
    def forward(self, x: Any, mask: Any = None, *, scale: float = 1.0, extra: Any = ()) -> Any:
        return x, mask, scale, extra


X, M = torch.randn(4, 3), torch.ones(4)


@pytest.mark.parametrize(
    ("args", "kwargs", "names"),
    [
        ((X,), {}, ("input",)),
        ((X, M), {}, ("x", "mask")),
        ((X,), {"mask": M}, ("x", "mask")),
        (({"image": X, "meta": {"v w": M}},), {}, ("x_image", "x_meta_v_w")),
        (((X, M), None), {"scale": 2.0}, ("x_0", "x_1")),
        ((), {"x": X, "extra": [M, M]}, ("x", "extra_0", "extra_1")),
        (([X],), {"mask": {"a": M}}, ("x_0", "mask_a")),
    ],
)
def test_tensors_are_named_and_put_back(args: Any, kwargs: Any, names: tuple[str, ...]) -> None:
    network = Network()
    found = Signature.of(network, args, kwargs)
    assert found.names == names
    assert found.plain == (names == ("input",))
    tensors = found.tensors(args, kwargs)
    assert len(tensors) == len(names)
    given, expected = Flat(network, found)(*tensors), network(*args, **kwargs)
    assert torch.utils._pytree.tree_structure(given) == torch.utils._pytree.tree_structure(expected)
    assert given[2] == expected[2]


def test_calls_of_another_form_are_refused() -> None:
    found = Signature.of(Network(), (X, M), {})
    with pytest.raises(ExportError, match=r"other arguments than in the first batch \(x, mask\)"):
        found.tensors((X,), {})
    with pytest.raises(ExportError, match="other arguments"):
        found.tensors((X, None), {})


def test_a_call_without_tensors_is_refused() -> None:
    with pytest.raises(ExportError, match=r"forward of Network must take tensors .* got int, str"):
        Signature.of(Network(), (3,), {"mask": "none"})


def test_names_that_meet_are_told_apart() -> None:
    found = Signature.of(Network(), ({"a_b": X, "a": {"b": M}},), {})
    assert len(set(found.names)) == 2


def test_first_rows() -> None:
    batches: list[tuple[Tensor, ...]] = [(X, torch.ones(2)), (X + 1, torch.ones(2))]
    rows = first_rows(batches, 6)
    assert torch.equal(rows[0], torch.cat([X, X + 1])[:6])
    assert torch.equal(rows[1], torch.ones(2))
