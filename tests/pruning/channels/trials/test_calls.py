"""A failed trial is traced to the call that causes it; operations that jump are no failure."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lit_compress.pruning import analyse


class Stage(nn.Module):
    """Two branches of a fixed width, as in CSPNet; all layers are applied at one line."""

    def __init__(self, fixed: bool, width: int = 16) -> None:
        super().__init__()
        self.fixed, self.sizes = fixed, [width, width]
        self.wide, self.one, self.two = (
            nn.Conv2d(width, out, 1) for out in (2 * width, width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = apply(self.wide, x)
        parts = x.split(self.sizes, 1) if self.fixed else x.chunk(2, 1)
        return apply(self.one, parts[0]) + apply(self.two, parts[1])


def apply(layer: nn.Module, x: Tensor) -> Tensor:
    return layer(x).relu()


def stages(*fixed: bool) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(*(Stage(one) for one in fixed), nn.Conv2d(16, 4, 1)).eval()


def frozen(model: nn.Module) -> dict[str, str]:
    graph = analyse(model, torch.randn(1, 16, 6, 6))
    return {part.tensor.removesuffix(".weight"): str(part.reason) for part in graph.frozen}


def test_only_what_feeds_a_fixed_split_is_frozen() -> None:
    """The convolutions behind it failed at the line of all convolutions, so all were frozen."""
    why = frozen(stages(True, False, True))
    assert why.keys() == {"0.wide", "2.wide", "3"}
    for name in ("0.wide", "2.wide"):
        assert "needs its present width" in why[name]
        assert f"split in {name[0]} at test_calls.py:" in why[name]


def test_a_split_into_another_number_of_parts_is_the_cause() -> None:
    """Res2Net: four parts of 26 became three of 26 and a rest."""

    class Parts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide = nn.Conv2d(16, 32, 1)
            self.layers = nn.ModuleList(nn.Conv2d(8, 8, 1) for _ in range(4))

        def forward(self, x: Tensor) -> Tensor:
            parts = self.wide(x).split(8, 1)
            return torch.cat(
                [layer(part) for layer, part in zip(self.layers, parts, strict=True)], 1
            )

    why = frozen(nn.Sequential(Parts(), nn.Conv2d(32, 4, 1)).eval())
    assert "split in 0 at test_calls.py:" in why["0.wide"]


JUMPS: dict[str, Callable[[Tensor], Tensor]] = {
    "sort": lambda x: x.flatten(1).sort(dim=1).indices.float(),
    "topk": lambda x: x.flatten(1).topk(20).indices.float(),
    "threshold": lambda x: x * (x > x.mean()),
    "round": lambda x: (x * 1e6).round(),
    "masked": lambda x: x[x > x.median()],
}


@pytest.mark.parametrize("jump", JUMPS.values(), ids=JUMPS.keys())
def test_an_order_that_a_rounding_changes_freezes_nothing(
    jump: Callable[[Tensor], Tensor],
) -> None:
    """The boxes of a detector are sorted: half of its backbone could not be pruned."""

    class Ordered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Conv2d(16, 24, 3), nn.ReLU(), nn.Conv2d(24, 8, 3))

        def forward(self, x: Tensor) -> Tensor:
            return jump(self.net(x) / 1000)

    graph = analyse(Ordered().eval(), torch.randn(1, 16, 12, 12))
    assert len(graph.channels) == 24


def test_a_real_difference_before_a_sort_is_found() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(16, 24, 3), nn.Conv2d(24, 8, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.one(x)
            return (self.two(x) + x.shape[1]).flatten(1).sort(dim=1).values

    graph = analyse(Scaled().eval(), torch.randn(1, 16, 12, 12))
    assert not graph.channels
    assert "add at test_calls.py:" in str(graph.frozen[0].reason)
