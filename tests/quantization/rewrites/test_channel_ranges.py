"""What is seen of channels is what numpy sees of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from lit_compress.export.onnx import capture
from lit_compress.quantization.rewrites.channel_ranges import Ranges, Seen


def seen(network: nn.Module, batches: list[Tensor]) -> Seen:
    graph: GraphModule = capture(network.eval(), batches[0][:2]).module(check_guards=False)
    makers = [n for n in graph.graph.nodes if "conv" in str(n.target) or "linear" in str(n.target)]
    starts = [0, *torch.tensor([4, 3]).cumsum(0).tolist()]
    ranges = Ranges(graph, dict(zip(makers, starts, strict=False)))
    with torch.no_grad():
        for batch in batches:
            ranges.run(batch)
    return ranges.seen(starts[-1])


def test_least_largest_and_mean_square_of_each_channel() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3))
    batches = list(torch.randn(24, 2, 5, 5).split(8))
    found = seen(network, batches)
    with torch.no_grad():
        images = torch.cat(batches)
        first = network[:2](images).movedim(1, 0).flatten(1)  # after the rectifier
        last = network(images).T
    for place, rows in ((slice(0, 4), first), (slice(4, 7), last)):
        torch.testing.assert_close(found.low[place], rows.amin(1).clamp(max=0))
        torch.testing.assert_close(found.high[place], rows.amax(1).clamp(min=0))
        torch.testing.assert_close(found.power[place], rows.square().mean(1))
    assert torch.equal(found.magnitude, torch.maximum(found.high, -found.low))


def test_large_values_in_half_precision_have_a_mean_square() -> None:
    """Their squares were infinite, and no channel was scaled."""
    network = nn.Linear(2, 4).half()
    with torch.no_grad():
        network.weight.fill_(500)
        network.bias.zero_()
    graph: GraphModule = capture(network, torch.ones(2, 2).half()).module(check_guards=False)
    (maker,) = [n for n in graph.graph.nodes if "linear" in str(n.target)]
    ranges = Ranges(graph, {maker: 0})
    with torch.no_grad():
        ranges.run(torch.ones(2, 2).half())
    assert torch.equal(ranges.seen(4).power, torch.full((4,), 1e6))
