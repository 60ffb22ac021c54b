"""Weights of networks that died, never ran, or are shared."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from doctor.faults import Net
from lit_compress.doctor import weights
from lit_compress.doctor.finding import joined


def test_buffers_must_be_finite_too() -> None:
    module = Net()
    module.body[1].running_var[3] = float("inf")  # type: ignore[index,union-attr]
    answer = weights.check_finite(module)
    assert (answer.verdict, answer.found) == ("error", "NaN or infinity in body.1.running_var")


@torch.no_grad()
@pytest.mark.parametrize(
    ("layer", "rows", "trained", "verdict"),
    [
        ("body.0", 1, False, "warning"),
        ("body.1", 2, False, "warning"),
        ("head.2", 4, False, "fine"),  # a head that begins with zeros
        ("head.2", 4, True, "warning"),
        ("body.1", 8, False, "fine"),  # the last norm of a residual branch
    ],
)
def test_channels_of_zeros_are_dead(layer: str, rows: int, trained: bool, verdict: str) -> None:
    module = Net().eval()
    module.get_submodule(layer).weight[:rows] = 0  # type: ignore[index,operator]
    answer = joined("dead", weights.check_dead(module, None, trained))
    assert answer.verdict == verdict
    assert (f"{layer} ({rows} of" in answer.found) == (verdict == "warning")


@torch.no_grad()
def test_a_rectifier_that_gives_zeros_alone_is_dead() -> None:
    module = Net().eval()
    module.body[1].bias -= 100  # type: ignore[index,operator]
    answer = joined("dead", weights.check_dead(module, torch.randn(8, 1, 8, 8), False))
    assert answer.verdict == "warning"
    assert answer.found == "layers that give zeros alone for a batch: body.2"


def trained_norms(count: int) -> nn.Sequential:
    norms = nn.Sequential(*(nn.BatchNorm1d(4) for _ in range(count)))
    optimizer = torch.optim.SGD(norms.parameters(), 0.1)
    norms(torch.randn(16, 4)).pow(3).sum().backward()
    optimizer.step()
    return norms


def test_norms_of_a_new_network_are_fine() -> None:
    assert joined("norms", weights.check_norms(nn.BatchNorm2d(3), False)).verdict == "fine"
    assert joined("norms", weights.check_norms(nn.BatchNorm2d(3), True)).verdict == "warning"
    assert joined("norms", weights.check_norms(trained_norms(2), True)).verdict == "fine"


def test_norms_whose_statistics_were_lost_are_named() -> None:
    """Their weights say that they were trained."""
    norms = trained_norms(3)
    norms[1].reset_running_stats()  # type: ignore[operator]
    answer = joined("norms", weights.check_norms(norms, False))
    assert answer.found.endswith(": 1, 1 of 3 batch norms")


@pytest.mark.parametrize(
    ("settings", "verdict"),
    [
        ({"momentum": 0.9}, "warning"),
        ({"momentum": 0.0}, "warning"),
        ({"momentum": None}, "fine"),
        ({"momentum": 3e-4}, "fine"),
        ({"eps": 0.0}, "warning"),
        ({"eps": 1.0}, "warning"),
        ({"eps": 1e-3}, "fine"),
    ],
)
def test_unusual_settings_of_a_norm(settings: dict[str, float], verdict: str) -> None:
    norm = nn.BatchNorm2d(2, **settings)  # type: ignore[arg-type]
    answer = joined("norms", weights.check_norms(nn.Sequential(norm), False))
    assert answer.verdict == verdict


def test_statistics_are_settled_after_enough_batches() -> None:
    norm = nn.BatchNorm1d(2, momentum=0.1)
    steps = 0
    while weights.unsettled(nn.Sequential(norm)):
        norm(torch.rand(4, 2))
        steps += 1
    assert steps == 7  # 0.9**6 is above a half, 0.9**7 below


def test_shared_and_frozen_weights_matter_if_they_are_pruned() -> None:
    module = Net(nn.Conv2d(8, 8, 3))
    module.more.weight = module.body[3].weight  # type: ignore[index,union-attr,assignment]
    answer = weights.check_tied(module, [])
    assert (answer.verdict, answer.found) == ("fine", "tied: body.3.weight = more.weight")
