from __future__ import annotations

import torch
from torch import Tensor, nn

from lit_compress.pruning.blocks.flow import Flow, ancestors
from pruning.blocks.nets import Basic, X, images


def followed(net: nn.Module, *inputs: Tensor) -> Flow:
    flow = Flow(net)
    with torch.no_grad(), flow.watching():
        out = net(*inputs)
    flow.outputs = (flow.value(out),)
    return flow


def test_calls_are_in_order_with_the_modules_that_make_them() -> None:
    flow = followed(images(Basic(4)), X)
    names = [call.name for call in flow.calls]
    assert names[:3] == ["conv2d", "relu", "conv2d"]
    assert [flow.owner(call) for call in flow.calls[:4]] == ["0", "1", "2.a", "2.bn"]
    assert flow.calls[0].reads == ("0.weight", "0.bias")
    (block,) = [call for call in flow.modules if call.name == "2"]
    assert (block.start, block.end) == (2, 8)
    assert block.shapes == [(2, 4, 6, 6)] * 2
    assert block.made == flow.calls[7].outputs


class InPlace(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x * 2
        z = y + 1
        y += z
        y[0] = 0
        return y


def test_a_change_in_place_is_a_new_value() -> None:
    flow = followed(InPlace(), torch.ones(3))
    times, plus, add, fill = flow.calls
    assert [call.name for call in flow.calls] == ["mul", "add", "add", "setitem"]
    assert add.inputs == (*times.outputs, *plus.outputs)
    assert len({*times.outputs, *plus.outputs, *add.outputs, *fill.outputs}) == 4
    assert flow.outputs == fill.outputs


def test_ancestors_leave_out_what_is_cut() -> None:
    flow = followed(images(Basic(4)), X)
    out = flow.outputs[0]
    assert ancestors(flow, out) == set(range(len(flow.calls)))
    (add,) = [number for number, call in enumerate(flow.calls) if call.name == "add"]
    branch = set(range(2, 6))  # the four calls of the branch
    assert ancestors(flow, out) - ancestors(flow, out, {add: 0}) == branch


def test_results_of_modules() -> None:
    class Pair(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, None]:
            return x + 1, None

    class Named(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"out": x}

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pair, self.named = Pair(), Named()

        def forward(self, x: Tensor) -> Tensor:
            return self.pair(x)[0] + self.named(x)["out"]

    flow = followed(Both(), torch.ones(2))
    found = {call.name: call for call in flow.modules}
    assert found["pair"].returns == 2
    assert found["pair"].made[1] == -1
    assert found["named"].returns == -1
