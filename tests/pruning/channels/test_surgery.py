import copy
from collections.abc import Callable, Iterable

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from lit_compress.errors import PlanError
from lit_compress.pruning import ChannelGraph, Plan, analyse, apply, make_plan
from lit_compress.pruning.channels.tracing.modules import named_tensors

Make = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


class SmallNet(nn.Module):
    """Conv, norm, depthwise conv, a gate, a skip and a flattening linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 10, 3, padding=1), nn.BatchNorm2d(10), nn.ReLU())
        self.deep = nn.Conv2d(10, 10, 3, padding=1, groups=10, bias=False)
        self.norm = nn.GroupNorm(5, 10)
        self.gate = nn.Sequential(nn.Conv2d(10, 6, 1), nn.ReLU(), nn.Conv2d(6, 10, 1), nn.Sigmoid())
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(10 * 16, 12), nn.PReLU(12))
        self.last = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.norm(self.deep(x))
        x = x * self.gate(x.mean((2, 3), keepdim=True))
        return self.last(self.head(x))


@pytest.fixture
def images() -> Tensor:
    return torch.randn(4, 3, 4, 4, dtype=torch.float64)


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return SmallNet().double()


def share(graph: ChannelGraph, ratio: float = 0.3) -> Plan:
    """Remove the first channels of each group."""
    selected = [
        number
        for group in graph.groups
        for number in group.channels[
            : min(graph.removable(group), int(len(group.channels) * ratio))
        ]
    ]
    return make_plan(graph, selected)


def zero_slices(model: nn.Module, plan: Plan, optimizer: torch.optim.Optimizer) -> None:
    """Zero every slice of the removed channels, in the weights and in the optimizer's state."""
    own = named_tensors(model)
    for cut in plan.cuts:
        tensor = own[cut.tensor]
        selected = torch.tensor(sorted(set(range(cut.size)) - set(cut.keep)))
        held = [v for v in optimizer.state.get(tensor, {}).values() if isinstance(v, Tensor)]
        for value in (tensor.data, *held):
            if value.shape == tensor.shape:
                value.index_fill_(cut.dim, selected, 0)


def loss_of(model: nn.Module, images: Tensor) -> Tensor:
    return nn.functional.cross_entropy(model(images), torch.arange(len(images)) % 4)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor) -> float:
    loss = loss_of(model, images)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def compare_training(model: nn.Module, images: Tensor, make: Make, steps: int = 6) -> None:
    """Train a pruned network and one whose removed slices stay zero; compare their losses."""
    graph = analyse(model, images[:2])
    model.train()
    optimizer = make(model.parameters())
    for _ in range(2):
        step(model, optimizer, images)
    plan = share(graph)
    assert plan.cuts
    twin = copy.deepcopy(model)
    other = make(twin.parameters())
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    zero_slices(twin, plan, other)
    kept = [id(parameter) for parameter in model.parameters()]
    apply(plan, model, optimizer)
    assert [id(parameter) for parameter in model.parameters()] == kept
    for _ in range(steps):
        expected = step(twin, other, images)
        zero_slices(twin, plan, other)
        assert step(model, optimizer, images) == pytest.approx(expected, rel=1e-9)


OPTIMIZERS: dict[str, Make] = {
    "sgd": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, weight_decay=1e-3),
    "nesterov": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, nesterov=True, foreach=True),
    "adamw": lambda p: torch.optim.AdamW(p, 1e-3),
    "adamw_foreach": lambda p: torch.optim.AdamW(p, 1e-3, foreach=True),
    "adamw_fused": lambda p: torch.optim.AdamW(p, 1e-3, fused=True),
    "adam": lambda p: torch.optim.Adam(p, 1e-3),
    "amsgrad": lambda p: torch.optim.Adam(p, 1e-3, amsgrad=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 1e-3, momentum=0.5, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, 1e-2),
    "adagrad_fused": lambda p: torch.optim.Adagrad(p, 1e-2, fused=True),
    "sgd_fused": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, fused=True),
}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_shrunk_network_trains_as_one_with_zeroed_slices(
    net: nn.Module, images: Tensor, make: Make
) -> None:
    compare_training(net, images, make)


@pytest.mark.slow
@pytest.mark.parametrize("make", [OPTIMIZERS["sgd"], OPTIMIZERS["adamw"]], ids=["sgd", "adamw"])
@pytest.mark.parametrize("name", ["alexnet", "mobilenet_v2", "shufflenet_v2_x1_0"])
def test_torchvision_network_trains_as_one_with_zeroed_slices(name: str, make: Make) -> None:
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None, num_classes=4).double()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    compare_training(model, torch.randn(4, 3, 64, 64, dtype=torch.float64), make)


def test_optimizer_is_cut_after_its_module(net: nn.Module, images: Tensor) -> None:
    optimizer = OPTIMIZERS["adamw"](net.parameters())
    plan = share(analyse(net, images))
    step(net, optimizer, images)
    twin = copy.deepcopy((net, optimizer))
    apply(plan, net, optimizer)
    apply(plan, twin[0])
    apply(plan, twin[1])
    for _ in range(3):
        assert step(net, optimizer, images) == step(*twin, images)


def assert_state_has_the_shapes_of_its_parameters(optimizer: torch.optim.Optimizer) -> None:
    momenta = [state["momentum_buffer"].shape for state in optimizer.state.values()]
    assert momenta == [parameter.shape for parameter in optimizer.state]


def test_names_in_the_plan_come_before_names_of_a_wrapper(net: nn.Module, images: Tensor) -> None:
    # an optimizer of wrapper.named_parameters() was left uncut, and its next step failed
    wrapper = nn.Sequential(net)
    optimizer = torch.optim.SGD(wrapper.named_parameters(), 0.1, momentum=0.9)
    step(wrapper, optimizer, images)
    plan = share(analyse(net, images))
    apply(plan, net)
    apply(plan, optimizer)
    step(wrapper, optimizer, images)
    assert_state_has_the_shapes_of_its_parameters(optimizer)


def test_cut_while_the_graph_of_the_last_loss_lives(net: nn.Module, images: Tensor) -> None:
    # autograd kept the old shape of a parameter as long as an earlier loss was referenced
    optimizer = OPTIMIZERS["sgd"](net.parameters())
    plan = share(analyse(net, images))
    loss = loss_of(net, images)
    loss.backward()
    apply(plan, net, optimizer)
    step(net, optimizer, images)
    assert loss.grad_fn is not None


def test_hooks_of_parameters_stay(net: nn.Module, images: Tensor) -> None:
    called = []
    weight = net.stem[0].weight
    weight.register_post_accumulate_grad_hook(lambda p: called.append(p.shape))
    loss_of(net, images).backward()
    apply(share(analyse(net, images)), net)
    loss_of(net, images).backward()
    assert [shape[0] for shape in called] == [10, 8]


def test_gradients_are_dropped_where_cut(net: nn.Module, images: Tensor) -> None:
    loss_of(net, images).backward()
    apply(share(analyse(net, images)), net)
    assert net.stem[0].weight.grad is None
    assert net.last.bias.grad is not None


def test_attributes_follow(net: nn.Module, images: Tensor) -> None:
    apply(share(analyse(net, images), 0.5), net)
    conv, norm, *_ = net.stem
    width = conv.weight.shape[0]
    assert conv.out_channels == norm.num_features == net.deep.groups == net.norm.num_channels
    assert width == conv.out_channels < 10
    assert net.norm.num_groups == width // 2
    assert net.head[1].in_features == width * 16
    assert net.head[2].num_parameters == net.last.in_features == 6


def untouched(net: nn.Module, optimizer: torch.optim.Optimizer, act: Callable[[], None]) -> str:
    """Return the error of an act that must change neither."""
    values = {name: tensor.clone() for name, tensor in named_tensors(net).items()}
    state = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(PlanError) as raised:
        act()
    assert all(torch.equal(tensor, values[name]) for name, tensor in named_tensors(net).items())
    assert str(optimizer.state_dict()) == str(state)
    assert net.stem[0].out_channels == 10
    return str(raised.value)


def test_lbfgs_is_refused(net: nn.Module, images: Tensor) -> None:
    optimizer = torch.optim.LBFGS(net.parameters(), max_iter=2)
    plan = share(analyse(net, images))

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(net, images)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert "LBFGS" in untouched(net, optimizer, lambda: apply(plan, net, optimizer))


@pytest.mark.parametrize("value", [torch.zeros(3), [torch.zeros(2)]], ids=["shape", "list"])
def test_foreign_state_is_refused(net: nn.Module, images: Tensor, value: object) -> None:
    optimizer = OPTIMIZERS["sgd"](net.parameters())
    plan = share(analyse(net, images))
    step(net, optimizer, images)
    optimizer.state[net.stem[0].weight]["own"] = value
    text = untouched(net, optimizer, lambda: apply(plan, net, optimizer))
    assert "'own'" in text
    assert "cannot be cut" in text


def test_second_application_is_refused(net: nn.Module, images: Tensor) -> None:
    plan = share(analyse(net, images))
    apply(plan, net)
    with pytest.raises(PlanError, match="applied already"):
        apply(plan, net)


def test_second_application_to_an_optimizer_is_refused(net: nn.Module, images: Tensor) -> None:
    """It was told to be another optimizer."""
    optimizer = OPTIMIZERS["sgd"](net.parameters())
    plan = share(analyse(net, images))
    step(net, optimizer, images)
    apply(plan, net, optimizer)
    with pytest.raises(PlanError, match="applied to the optimizer already"):
        apply(plan, optimizer)


def test_plan_for_another_module_is_refused(images: Tensor, net: nn.Module) -> None:
    with pytest.raises(PlanError, match="another network"):
        apply(share(analyse(net, images)), nn.Sequential(nn.Conv2d(3, 4, 1)))


def test_optimizer_of_unknown_parameters_is_refused(net: nn.Module, images: Tensor) -> None:
    plan = share(analyse(net, images))
    with pytest.raises(PlanError, match="to its module first"):
        apply(plan, OPTIMIZERS["sgd"](nn.Linear(2, 2).parameters()))


def test_factored_state_is_cut_where_it_has_a_size(net: nn.Module, images: Tensor) -> None:
    optimizer = torch.optim.Adafactor(net.parameters())
    plan = share(analyse(net, images))
    step(net, optimizer, images)
    before = copy.deepcopy(net)
    apply(plan, net, optimizer)
    rows = optimizer.state[net.deep.weight]["row_var"]
    step(net, optimizer, images)
    assert optimizer.state[net.deep.weight]["row_var"] is rows
    assert len(rows) == net.deep.out_channels < before.deep.out_channels


def test_averaged_model_is_cut_like_its_module(net: nn.Module, images: Tensor) -> None:
    average = AveragedModel(net)
    plan = share(analyse(net, images))
    apply(plan, net)
    apply(plan, average)
    average.update_parameters(net)
    assert torch.equal(average(images), net(images))


def test_channels_last_stays() -> None:
    net = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Conv2d(8, 6, 3), nn.Flatten(), nn.Linear(54, 2))
    net = net.to(memory_format=torch.channels_last)
    apply(share(analyse(net, torch.randn(1, 8, 7, 7))), net)
    assert net[1].weight.shape == (5, 6, 3, 3)
    assert net[1].weight.is_contiguous(memory_format=torch.channels_last)


def test_tied_weights_stay_tied() -> None:
    first, second = nn.Linear(4, 9), nn.Linear(4, 9)
    second.weight = first.weight
    net = nn.ModuleDict({"first": first, "second": second, "last": nn.Linear(9, 2)})
    net.forward = lambda x: net["last"](net["first"](x) + net["second"](-x).relu())
    apply(share(analyse(net, torch.randn(3, 4))), net)
    assert first.weight is second.weight
    assert first.out_features == second.out_features == len(second.bias) == 7


def test_one_by_one_convolutions_stay_in_their_memory_format() -> None:
    """Their bytes are the same in both formats, and they fell back to the plain one."""
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)).to(
        memory_format=torch.channels_last
    )
    graph = analyse(net, torch.zeros(1, 3, 4, 4))
    apply(make_plan(graph, graph.channels[:4]), net)
    assert net[1].weight.shape == (4, 4, 1, 1)
    assert net[1].weight.stride() == (4, 1, 4, 4)
