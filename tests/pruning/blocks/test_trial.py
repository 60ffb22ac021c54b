from __future__ import annotations

import torch

from lit_compress.pruning.blocks.branches import sums_of
from lit_compress.pruning.blocks.trial import failure_without
from pruning.blocks.nets import Basic, X, images
from pruning.blocks.test_flow import followed


@torch.no_grad()
def test_a_difference_and_an_error_are_said() -> None:
    net = images(Basic(4), first=torch.nn.Tanh())
    (add,) = sums_of(followed(net, X))
    runs = [lambda: net(X)]

    def failure(kinds: dict[str, str], position: int = 0) -> str | None:
        return failure_without(net, runs, kinds, {add: position})

    assert failure({"2": "relu"}) is None
    assert "computes something else" in str(failure({"2": "identity"}))  # the activation is lost
    assert "computes something else" in str(failure({"2": "relu"}, position=1))
    assert "the forward fails without it" in str(failure({"2": "relu:2"}))
