"""Hold: what masks drop is zero after each step, and everything else is as without them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from lit_compress.callbacks.hold import Hold


@pytest.fixture
def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 2))


@pytest.fixture
def masks(net: nn.Sequential) -> dict[str, Tensor]:
    names = ("0.weight", "0.bias", "2.weight")
    generator = torch.Generator().manual_seed(1)
    own = dict(net.named_parameters())
    return {name: torch.rand(own[name].shape, generator=generator) > 0.5 for name in names}


def backward(net: nn.Module) -> None:
    images = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    net.zero_grad()
    net(images).square().sum().backward()


def test_only_what_masks_drop_is_zero(net: nn.Sequential, masks: dict[str, Tensor]) -> None:
    before = copy.deepcopy(net.state_dict())
    Hold().hold(dict(net.named_parameters()), masks)
    for name, tensor in net.state_dict().items():
        kept = masks.get(name, torch.ones((), dtype=torch.bool))
        assert torch.equal(tensor, before[name].where(kept, 0)), name


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
def test_steps_are_those_of_a_loop_that_multiplies_by_hand(
    kind: type[torch.optim.Optimizer], net: nn.Sequential, masks: dict[str, Tensor]
) -> None:
    twin = copy.deepcopy(net)
    hold, optimizer, other = Hold(), kind(net.parameters()), kind(twin.parameters())
    hold.hold(dict(net.named_parameters()), masks)
    hold.attach([optimizer])
    with torch.no_grad():
        for _ in range(4):
            for name, parameter in twin.named_parameters():
                parameter.mul_(masks.get(name, 1))
            with torch.enable_grad():
                backward(net)
                backward(twin)
            optimizer.step()
            other.step()
        for name, parameter in twin.named_parameters():
            assert torch.equal(net.get_parameter(name), parameter * masks.get(name, 1)), name


def test_masked_gradients_count_in_no_norm(net: nn.Sequential, masks: dict[str, Tensor]) -> None:
    hold = Hold()
    hold.hold(dict(net.named_parameters()), masks)
    backward(net)
    gradients = {name: p.grad.clone() for name, p in net.named_parameters()}
    hold.apply_to_gradients()
    for name, parameter in net.named_parameters():
        assert torch.equal(parameter.grad, gradients[name] * masks.get(name, 1)), name


def test_parameters_without_a_gradient_are_passed_over(
    net: nn.Sequential, masks: dict[str, Tensor]
) -> None:
    hold = Hold()
    hold.hold(dict(net.named_parameters()), masks)
    hold.apply_to_gradients()
    assert all(parameter.grad is None for parameter in net.parameters())


def test_released_optimizers_step_freely(net: nn.Sequential, masks: dict[str, Tensor]) -> None:
    hold, optimizer = Hold(), torch.optim.SGD(net.parameters(), 0.1)
    hold.hold(dict(net.named_parameters()), masks)
    hold.attach([optimizer])
    hold.attach([optimizer])  # anew, not twice
    assert len(optimizer._optimizer_step_post_hooks) == 1
    hold.release()
    backward(net)
    optimizer.step()
    assert net[2].weight[~masks["2.weight"]].abs().min() > 0


def test_cleared_masks_hold_nothing(net: nn.Sequential, masks: dict[str, Tensor]) -> None:
    hold = Hold()
    hold.hold(dict(net.named_parameters()), masks)
    hold.clear()
    with torch.no_grad():
        net[2].weight.fill_(1)
    hold.apply()
    assert net[2].weight.min() == 1


def test_new_masks_replace_the_old(net: nn.Sequential, masks: dict[str, Tensor]) -> None:
    hold, parameters = Hold(), dict(net.named_parameters())
    hold.hold(parameters, masks)
    hold.hold(parameters, {"0.bias": torch.tensor([True, False, True, True])})
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.fill_(1)
    hold.apply()
    assert net[0].bias.tolist() == [1, 0, 1, 1]
    assert net[2].weight.min() == 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtype_and_memory_format_are_the_weights(
    dtype: torch.dtype, net: nn.Sequential, masks: dict[str, Tensor]
) -> None:
    net = net.to(dtype).to(memory_format=torch.channels_last)
    before = net[0].weight.clone()
    Hold().hold(dict(net.named_parameters()), masks)
    assert net[0].weight.dtype == dtype
    assert net[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(net[0].weight, before.where(masks["0.weight"], 0))
