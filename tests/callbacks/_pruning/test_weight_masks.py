import re

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn

from lit_compress.callbacks._pruning.weight_masks import WeightMasks, mask_cost


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))


def masked(net: nn.Module) -> WeightMasks:
    """Hold the first filter of the first layer at zero."""
    masks = WeightMasks()
    mask = torch.ones(3, 4, dtype=torch.bool)
    mask[0] = False
    masks.set(dict(net.named_parameters()), {"0.weight": mask})
    return masks


def step(net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    net(torch.ones(2, 4)).square().sum().backward()
    optimizer.step()


def test_weights_are_zero_at_once_and_others_as_they_were(net: nn.Module) -> None:
    before = net[0].weight.detach().clone()
    masked(net)
    assert not net[0].weight[0].any()
    assert torch.equal(net[0].weight[1:], before[1:])


@pytest.mark.parametrize("name", ["SGD", "AdamW", "RMSprop"])
def test_weights_stay_zero_after_each_step_until_released(net: nn.Module, name: str) -> None:
    options = {"momentum": 0.9} if name == "SGD" else {}
    optimizer = getattr(torch.optim, name)(net.parameters(), lr=0.1, **options)
    step(net, optimizer)  # momentum that would move what is held
    masks = masked(net)
    masks.attach([optimizer])
    for _ in range(3):
        step(net, optimizer)
        assert not net[0].weight[0].any()
        assert net[0].weight[1:].all()
    masks.detach()
    step(net, optimizer)
    assert net[0].weight[0].any()


def test_attaching_again_leaves_one_hook(net: nn.Module) -> None:
    optimizer, masks = torch.optim.SGD(net.parameters(), lr=0.1), masked(net)
    masks.attach([optimizer])
    masks.attach([optimizer])
    assert len(optimizer._optimizer_step_post_hooks) == 1
    masks.detach()
    masks.detach()
    assert not optimizer._optimizer_step_post_hooks


def test_gradients_of_what_is_held_are_zero_and_absent_ones_stay_absent(net: nn.Module) -> None:
    masks = masked(net)
    masks.apply_to_gradients()
    assert net[0].weight.grad is None
    net(torch.ones(2, 4)).square().sum().backward()
    net[0].weight.grad.fill_(1.0)
    masks.apply_to_gradients()
    assert net[0].weight.grad.sum(1).tolist() == [0, 4, 4]


def test_nothing_is_held_before_or_after(net: nn.Module) -> None:
    WeightMasks().apply()
    WeightMasks().apply_to_gradients()
    masks = masked(net)
    masks.clear()
    nn.init.ones_(net[0].weight)
    masks.apply()
    assert net[0].weight.all()


def test_the_last_masks_count(net: nn.Module) -> None:
    masks = masked(net)
    mask = torch.tensor([[True, False, True], [True, True, True]])
    masks.set(dict(net.named_parameters()), {"1.weight": mask})
    nn.init.ones_(net[0].weight)
    nn.init.ones_(net[1].weight)
    masks.apply()
    assert net[0].weight.all()
    assert torch.equal(net[1].weight.bool(), mask)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_masks_have_type_and_memory_format_of_their_weights(dtype: torch.dtype) -> None:
    layer = nn.Conv2d(4, 4, 3).to(dtype).to(memory_format=torch.channels_last)
    mask = torch.rand(4, 4, 3, 3) > 0.5
    masks = WeightMasks()
    masks.set({"weight": layer.weight}, {"weight": mask})
    assert torch.equal(layer.weight.bool(), mask)
    assert layer.weight.dtype == masks._masks[0].dtype == dtype
    assert layer.weight.is_contiguous(memory_format=torch.channels_last)
    assert masks._masks[0].is_contiguous(memory_format=torch.channels_last)


def test_after_a_step_only_the_weights_of_its_optimizer_are_written_to() -> None:
    """A discriminator's loss went backward through weights that the generator's step had masked."""
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    optimizers = [torch.optim.SGD(layer.parameters(), 0.1) for layer in (first, second)]
    masks = WeightMasks()
    masks.attach(optimizers)
    keep = {"a": torch.eye(4) > 0, "b": torch.eye(4) > 0}
    masks.set({"a": first.weight, "b": second.weight}, keep)
    later = second(torch.ones(1, 4)).square().sum()  # as D(x), before the generator's step
    first(torch.ones(1, 4)).sum().backward()
    optimizers[0].step()
    assert not first.weight[~keep["a"]].any()
    later.backward()
    optimizers[1].step()
    assert not second.weight[~keep["b"]].any()


def test_a_weight_that_an_optimizer_takes_on_later_stays_masked() -> None:
    layer, other = nn.Linear(4, 4), nn.Linear(4, 4)
    optimizer = torch.optim.SGD(other.parameters(), 0.1)
    masks = WeightMasks()
    masks.attach([optimizer])
    masks.set({"a": layer.weight}, {"a": torch.eye(4) > 0})
    for _ in range(2):
        (layer(torch.ones(1, 4)) + other(torch.ones(1, 4))).sum().backward()
        optimizer.step()
        if len(optimizer.param_groups) == 1:
            optimizer.add_param_group({"params": list(layer.parameters())})
    assert layer.weight.diagonal().ne(0).all()
    assert not layer.weight[torch.eye(4) == 0].any()


@pytest.mark.parametrize(
    ("batches", "accumulated", "text"),
    [(1e9, 1, r"\d{2,}\.\d s of each epoch"), (float("inf"), 4, r"\d+\.\d ms of each step")],
)
def test_the_cost_of_masks_is_of_an_epoch_or_where_it_has_no_length_of_a_step(
    net: nn.Module, batches: float, accumulated: int, text: str
) -> None:
    trainer = Trainer(accumulate_grad_batches=accumulated, accelerator="cpu", logger=False)
    trainer.fit_loop.max_batches = batches
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert re.search(text, mask_cost(trainer, net.parameters()))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
