"""What the values of each channel are like, in runs of a captured graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from lit_compress.quantization.operations import HOMOGENEOUS, channel_dim


@dataclass(frozen=True)
class Seen:
    """What each channel was like in the runs: its least and largest value, and mean square."""

    low: Tensor
    high: Tensor
    power: Tensor

    @property
    def magnitude(self) -> Tensor:
        """The largest magnitude of each channel."""
        return torch.maximum(self.high, -self.low)


class Ranges(Interpreter):
    """Runs that look at the values of each channel, after its rectifier if it has one.

    Args:
        graph: The captured graph.
        made: By node that makes channels, the number of its first.
    """

    def __init__(self, graph: GraphModule, made: Mapping[Node, int]) -> None:
        super().__init__(graph)
        self.extra_traceback = False
        self._made = made
        self._found: dict[Node, list[Seen]] = {}

    def run_node(self, n: Node) -> Any:
        """Run one node and look at what it gives."""
        value = super().run_node(n)
        maker: Any = n.args[0] if n.target in HOMOGENEOUS else n
        if maker in self._made and (maker is n) == (not _is_rectified(maker)):
            rows = value.float().movedim(channel_dim(maker, value), 0).flatten(1)
            least, most = rows.aminmax(dim=1)
            seen = Seen(least.clamp(max=0), most.clamp(min=0), rows.square().mean(1))
            self._found.setdefault(maker, []).append(seen)
        return value

    def seen(self, count: int) -> Seen:
        """Return what the channels were like in all runs."""
        low, high, power = torch.zeros(3, count)
        for maker, runs in self._found.items():
            start = self._made[maker]
            own = slice(start, start + len(runs[0].low))
            low[own] = torch.stack([run.low for run in runs]).amin(0)
            high[own] = torch.stack([run.high for run in runs]).amax(0)
            power[own] = torch.stack([run.power for run in runs]).mean(0)
        return Seen(low, high, power)


def _is_rectified(maker: Node) -> bool:
    users = list(maker.users)
    return len(users) == 1 and users[0].target in HOMOGENEOUS
