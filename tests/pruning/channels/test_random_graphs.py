"""Random networks: what is removed computes what the network does in which nothing reads it."""

import copy
from collections import Counter
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lit_compress.errors import ChannelError
from lit_compress.pruning import ChannelGraph, Plan, analyse, apply, make_plan
from lit_compress.pruning.channels.tracing.modules import named_tensors

Draw = Callable[[st.SearchStrategy], int]
Step = Callable[["RandomNet", list[Tensor]], None]


class RandomNet(nn.Module):
    """A list of steps; each works on the activations so far, of which the last is the newest."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.layers = nn.ModuleDict()
        self.steps: list[Step] = []
        self.inputs = inputs
        self.outputs = 1

    def forward(self, *images: Tensor) -> Tensor | tuple[Tensor, ...]:
        held = list(images)
        for step in self.steps:
            step(self, held)
        return held[-1] if self.outputs == 1 else tuple(held[-self.outputs :])


class Builder:
    """Draws one step after the other, watching the shapes by running what there is."""

    def __init__(self, draw: Draw) -> None:
        self.draw = draw
        self.net = RandomNet(draw(st.sampled_from([1, 1, 1, 2]))).double()
        self.images = tuple(
            torch.randn(2, 3 + i, 8, 8, dtype=torch.float64) for i in range(self.net.inputs)
        )
        self.held: list[Tensor] = list(self.images)
        self.number = 0
        self.used: list[str] = []

    def pick(self, *values: object) -> object:
        return self.draw(st.sampled_from(values))

    def layer(self, module: nn.Module) -> str:
        self.number += 1
        name = f"{type(module).__name__.lower()}{self.number}"
        self.net.layers[name] = module.double()
        return name

    def parameter(self, *shape: int) -> str:
        return self.layer(nn.ParameterList([nn.Parameter(torch.rand(shape) + 0.5)]))

    def add(self, step: Step) -> None:
        with torch.no_grad():
            step(self.net, self.held)
        self.net.steps.append(step)

    def on_last(self, function: Callable[[RandomNet, Tensor], Tensor]) -> None:
        self.add(lambda net, held: held.append(function(net, held[-1])))

    def run(self, name: str) -> None:
        self.on_last(lambda net, x: net.layers[name](x))

    @property
    def x(self) -> Tensor:
        return self.held[-1]

    @property
    def channels(self) -> int:
        return self.x.shape[1]


def conv(b: Builder) -> None:
    size, out = b.pick(1, 3), b.pick(4, 6, 8, 12)
    b.run(b.layer(nn.Conv2d(b.channels, out, size, padding=size // 2, bias=b.pick(True, False))))


def grouped(b: Builder) -> None:
    groups = b.pick(2, 4)
    if b.channels % groups == 0:
        b.run(b.layer(nn.Conv2d(b.channels, groups * b.pick(1, 2, 3), 1, groups=groups)))


def depthwise(b: Builder) -> None:
    c = b.channels
    b.run(b.layer(nn.Conv2d(c, c * b.pick(1, 1, 2), 3, padding=1, groups=c)))


def transposed(b: Builder) -> None:
    c = b.channels
    groups = b.pick(1, 1, 2, c)
    if c % groups == 0 and b.x.shape[2] <= 8:
        b.run(b.layer(nn.ConvTranspose2d(c, groups * b.pick(1, 2, 4), 2, stride=1, groups=groups)))


def batch_norm(b: Builder) -> None:
    norm = nn.BatchNorm2d(b.channels, affine=b.pick(True, True, False))
    norm.running_mean.normal_(0, 0.3)
    norm.running_var.uniform_(0.5, 1.5)
    if norm.affine:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias)
    b.run(b.layer(norm.eval()))


def group_norm(b: Builder) -> None:
    groups = b.pick(1, 2, 4, b.channels)
    if b.channels % groups == 0:
        b.run(b.layer(nn.GroupNorm(groups, b.channels, affine=b.pick(True, False))))


def instance_norm(b: Builder) -> None:
    if b.x.shape[2] > 1:
        b.run(b.layer(nn.InstanceNorm2d(b.channels, affine=b.pick(True, False))))


def activation(b: Builder) -> None:
    function = b.pick(F.relu, torch.sigmoid, F.gelu, torch.exp, torch.tanh)
    if function is torch.exp:
        b.on_last(lambda _, x: torch.exp(-x.abs()))
    else:
        b.on_last(lambda _, x: function(x))


def prelu(b: Builder) -> None:
    b.run(b.layer(nn.PReLU(b.pick(1, b.channels))))


def in_place(b: Builder) -> None:
    kind = b.pick("relu", "add", "mul", "clamp", "iadd")

    def step(net: RandomNet, held: list[Tensor]) -> None:
        x = held[-1].clone()
        if kind == "relu":
            F.relu(x, inplace=True)
        elif kind == "add":
            x.add_(held[-1])
        elif kind == "mul":
            x.mul_(torch.sigmoid(held[-1]))
        elif kind == "clamp":
            x.clamp_(-1, 2)
        else:
            x += held[-1] * 0.5
        held.append(x)

    b.add(step)


def partner(b: Builder) -> int:
    """An older activation of the same shape, made by a conv from another if there is none."""
    same = [i for i, x in enumerate(b.held[:-1]) if x.shape == b.x.shape and i >= b.net.inputs]
    if same and b.pick(True, True, False):
        return b.pick(*same) - len(b.held)
    fitting = [i for i, x in enumerate(b.held) if x.dim() == 4 and x.shape[2:] == b.x.shape[2:]]
    source = b.pick(*fitting)
    name = b.layer(nn.Conv2d(b.held[source].shape[1], b.channels, 1))
    back = len(b.held) - source

    def step(net: RandomNet, held: list[Tensor]) -> None:
        newest = held[-1]
        held.append(net.layers[name](held[-back]))
        held.append(newest)

    b.add(step)
    return -2


def binary(b: Builder) -> None:
    other, kind = partner(b), b.pick("add", "mul", "sub", "max", "where")

    def step(_: RandomNet, held: list[Tensor]) -> None:
        x, y = held[-1], held[other]
        results = {
            "add": lambda: x + y,
            "mul": lambda: x * y.sigmoid(),
            "sub": lambda: torch.sub(x, y, alpha=0.5),
            "max": lambda: torch.maximum(x, y),
            # Without a jump at 0, on either side of which rounding may put a value.
            "where": lambda: torch.where(x > 0, x * y.sigmoid(), x),
        }
        held.append(results[kind]())

    b.add(step)


def cat(b: Builder) -> None:
    fitting = [
        i for i, x in enumerate(b.held[:-1]) if x.dim() == 4 and x.shape[2:] == b.x.shape[2:]
    ]
    if fitting and b.channels <= 16:
        back = b.pick(*fitting) - len(b.held)
        b.add(lambda _, held: held.append(torch.cat([held[back], held[-1]], dim=1)))


def dense_block(b: Builder) -> None:
    names, c = [], b.channels
    if c > 16:
        return
    for _ in range(2):
        names.append(b.layer(nn.Conv2d(c, 4, 1)))
        c += 4

    def step(net: RandomNet, held: list[Tensor]) -> None:
        features = [held[-1]]
        for name in names:
            features.append(net.layers[name](torch.cat(features, 1)).relu())
        held.append(torch.cat(features, 1))

    b.add(step)


def halves(b: Builder) -> None:
    kind = b.pick("chunk", "split", "slice", "unequal", "tensor_split")
    c = b.channels
    if c % 2 or c < 4:
        return

    def step(_: RandomNet, held: list[Tensor]) -> None:
        x = held[-1]
        if kind == "chunk":
            first, second = x.chunk(2, dim=1)
        elif kind == "split":
            first, second = x.split(c // 2, 1)
        elif kind == "tensor_split":
            first, second = x.tensor_split(2, dim=1)
        elif kind == "slice":
            first, second = x[:, : c // 2], x[:, c // 2 :]
        else:
            first, second = x.split([1, c - 1], dim=1)
        if kind == "unequal":
            held.append(torch.cat([second.relu(), first], 1))
        else:
            held.append(first * second.sigmoid())

    b.add(step)


def half_branch(b: Builder) -> None:
    c = b.channels
    if c % 2 or c < 4:
        return
    name = b.layer(nn.Conv2d(c // 2, c // 2, 1))

    def step(net: RandomNet, held: list[Tensor]) -> None:
        first, second = held[-1].chunk(2, 1)
        held.append(torch.cat((first, net.layers[name](second)), 1))

    b.add(step)


def shuffle(b: Builder) -> None:
    groups, kind = b.pick(2, 4), b.pick("view", "flatten", "module", "einops", "size")
    if b.channels % groups:
        return

    def step(_: RandomNet, held: list[Tensor]) -> None:
        x = held[-1]
        n, c, h, w = x.shape
        if kind == "view":
            x = x.view(n, groups, c // groups, h, w).transpose(1, 2).contiguous().view(n, -1, h, w)
        elif kind == "flatten":
            x = x.reshape(n, groups, c // groups, h, w).permute(0, 2, 1, 3, 4).flatten(1, 2)
        elif kind == "einops":
            x = x.reshape(n, c // groups, groups, h, w).transpose(1, 2).reshape(n, c, h, w)
        elif kind == "size":
            x = x.reshape(n, -1, groups, h, w).swapaxes(1, 2).reshape(n, -1, h, w)
        else:
            x = F.channel_shuffle(x, groups)
        held.append(x)

    b.add(step)


def gate(b: Builder) -> None:
    c = b.channels
    kind = b.pick("conv", "linear")
    if kind == "conv":
        names = [b.layer(nn.Conv2d(c, 4, 1)), b.layer(nn.Conv2d(4, c, 1))]
    else:
        names = [b.layer(nn.Linear(c, 4)), b.layer(nn.Linear(4, c))]

    def step(net: RandomNet, held: list[Tensor]) -> None:
        x = held[-1]
        if kind == "conv":
            y = x.mean((2, 3), keepdim=True)
            y = net.layers[names[1]](net.layers[names[0]](y).relu()).sigmoid()
        else:
            y = F.adaptive_avg_pool2d(x, 1).flatten(1)
            y = net.layers[names[1]](net.layers[names[0]](y).relu()).sigmoid()[:, :, None, None]
        held.append(x * y)

    b.add(step)


def spatial_gate(b: Builder) -> None:
    name = b.layer(nn.Conv2d(b.channels, 1, 1))
    b.on_last(lambda net, x: x * net.layers[name](x).sigmoid())


def scale(b: Builder) -> None:
    c, kind = b.channels, b.pick("c11", "view", "1c11", "index", "exp")
    shape = {"c11": (c, 1, 1), "1c11": (1, c, 1, 1)}.get(kind, (c,))
    name = b.parameter(*shape)

    def step(net: RandomNet, held: list[Tensor]) -> None:
        weight = net.layers[name][0]
        if kind == "view":
            weight = weight.view(1, -1, 1, 1)
        elif kind == "index":
            weight = weight[None, :, None, None]
        elif kind == "exp":
            weight = weight.exp().reshape(-1, 1, 1)
        held.append(held[-1] * weight)

    b.add(step)


def pool(b: Builder) -> None:
    if b.x.shape[2] < 2:
        return
    kind = b.pick("max", "avg", "adaptive", "resize")
    functions = {
        "max": lambda _, x: F.max_pool2d(x, 3, 1, 1),
        "avg": lambda _, x: F.avg_pool2d(x, 2, 1, 1),
        "adaptive": lambda _, x: F.adaptive_avg_pool2d(x, x.shape[2]),
        "resize": lambda _, x: F.interpolate(x, size=x.shape[2:], mode="nearest"),
    }
    b.on_last(functions[kind])


def pixels(b: Builder) -> None:
    if b.channels % 4 == 0 and b.channels >= 8 and b.x.shape[2] % 2 == 0:
        name = b.layer(nn.Conv2d(b.channels // 4, 4, 2, stride=2))
        b.on_last(lambda net, x: net.layers[name](F.pixel_shuffle(x, 2)))


def unpixels(b: Builder) -> None:
    if b.x.shape[2] % 2 == 0 and b.x.shape[2] > 2 and b.channels <= 8:
        name = b.layer(nn.Conv2d(b.channels * 4, 6, 1))
        b.on_last(lambda net, x: net.layers[name](F.pixel_unshuffle(x, 2)))


def through_linear(b: Builder) -> None:
    size = b.x[0].numel()
    if size > 800:
        return
    first, second = b.layer(nn.Linear(size, 10)), b.layer(nn.Linear(10, 6 * 16))
    kind = b.pick("view", "unflatten")

    def step(net: RandomNet, held: list[Tensor]) -> None:
        y = net.layers[second](net.layers[first](held[-1].flatten(1)).relu())
        held.append(y.view(y.shape[0], -1, 4, 4) if kind == "view" else y.unflatten(1, (6, 4, 4)))

    b.add(step)


def tokens(b: Builder) -> None:
    first, second = b.layer(nn.Linear(b.channels, 12)), b.layer(nn.Linear(12, b.channels))

    def step(net: RandomNet, held: list[Tensor]) -> None:
        x = held[-1]
        y = x.flatten(2).transpose(1, 2)
        y = y + net.layers[second](F.gelu(net.layers[first](y)))
        held.append(y.transpose(1, 2).reshape(x.shape))

    b.add(step)


def matrix(b: Builder) -> None:
    name = b.layer(nn.ParameterList([nn.Parameter(torch.randn(b.channels, 6) * 0.4)]))
    b.on_last(lambda net, x: (x.movedim(1, -1) @ net.layers[name][0]).movedim(-1, 1))


def fixed_size(b: Builder) -> None:
    """Sizes written into the code, which a removal would break."""
    c, kind = b.channels, b.pick("view", "slice", "repeat", "assert", "mean")
    if c % 2 or c < 4:
        return

    def step(_: RandomNet, held: list[Tensor]) -> None:
        x = held[-1]
        if kind == "view":
            x = x.view(-1, c, *x.shape[2:])
        elif kind == "slice":
            x = x[:, : c // 2] + x[:, -(c // 2) :]
        elif kind == "repeat":
            x = x.repeat(1, 2, 1, 1)[:, ::2]
        elif kind == "assert":
            if x.shape[1] != c:
                raise ValueError("another width")
        else:
            x = x - x.mean(1, keepdim=True)
        held.append(x)

    b.add(step)


def reuse(b: Builder) -> None:
    """A layer used again: a conv that keeps its width, two or three times."""
    name, times = b.layer(nn.Conv2d(b.channels, b.channels, 1)), b.pick(2, 3)

    def step(net: RandomNet, held: list[Tensor]) -> None:
        x = held[-1]
        for _ in range(times):
            x = net.layers[name](x).tanh()
        held.append(x)

    b.add(step)


def tied(b: Builder) -> None:
    """Two layers with one weight."""
    first, second = (nn.Conv2d(b.channels, 6, 1) for _ in range(2))
    second.weight = first.weight
    names = b.layer(first), b.layer(second)
    b.on_last(lambda net, x: net.layers[names[0]](x) - net.layers[names[1]](x.flip(3)).relu())


def transposed_weight(b: Builder) -> None:
    name = b.layer(nn.Linear(b.channels, 8))

    def step(net: RandomNet, held: list[Tensor]) -> None:
        y = net.layers[name](held[-1].movedim(1, -1)).relu()
        held.append(F.linear(y, net.layers[name].weight.t()).movedim(-1, 1))

    b.add(step)


STEPS = (
    *(conv, conv, conv, grouped, depthwise, transposed, batch_norm, group_norm, instance_norm),
    *(activation, prelu, in_place, binary, binary, cat, dense_block, halves, half_branch, shuffle),
    *(gate, spatial_gate, scale, pool, pixels, unpixels, through_linear, tokens, matrix),
    *(fixed_size, reuse, tied, transposed_weight),
)


@st.composite
def networks(draw: Draw) -> tuple[RandomNet, tuple[Tensor, ...], int]:
    seed = draw(st.integers(0, 2**16))
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        b = Builder(draw)
        conv(b)
        if b.net.inputs == 2:
            partner(b)
            second = b.layer(nn.Conv2d(4, b.channels, 1))
            b.add(lambda net, held: held.append(held[-1] + net.layers[second](held[1])))
        for step in draw(st.lists(st.sampled_from(STEPS), min_size=2, max_size=9)):
            step(b)
            if b.x.dim() != 4 or b.x.numel() > 20_000:
                break
        conv(b)
        head = b.layer(nn.Linear(b.channels, 5))
        b.on_last(lambda net, x: net.layers[head](x.mean((2, 3))))
        if draw(st.sampled_from([True, False, False, False])):
            back = draw(st.sampled_from([i for i, x in enumerate(b.held) if x.dim() == 4]))
            other = b.layer(nn.Conv2d(b.held[back].shape[1], 2, 1))
            back -= len(b.held)
            b.add(lambda net, held: held.append(net.layers[other](held[back])))
            b.net.outputs = 2
    return b.net.eval(), b.images, seed


def chosen(graph: ChannelGraph, seed: int) -> Plan:
    """Remove some channels of each group; of some groups, as many as possible."""
    generator = torch.Generator().manual_seed(seed)
    removed: list[int] = []
    for group in graph.groups:
        most = graph.removable(group)
        count = int(torch.randint(0, most + 1, (1,), generator=generator))
        count = most if seed % 3 == 0 else count
        order = torch.randperm(len(group.channels), generator=generator)[:count]
        removed += [group.channels[i] for i in order.tolist()]
    return make_plan(graph, removed)


def masked(model: nn.Module, graph: ChannelGraph, plan: Plan) -> nn.Module:
    """The same network, in which nothing reads the channels: zeros in the weights that would."""
    twin = copy.deepcopy(model)
    own = named_tensors(twin)
    for cut in plan.cuts:
        if graph.roles[cut.tensor, cut.dim] == "input":
            removed = sorted(set(range(cut.size)) - set(cut.keep))
            own[cut.tensor].data.index_fill_(cut.dim, torch.tensor(removed), 0)
    return twin


def outputs(model: nn.Module, images: tuple[Tensor, ...]) -> list[Tensor]:
    with torch.no_grad():
        result = model(*images)
    return [result] if isinstance(result, Tensor) else list(result)


def check(case: tuple[RandomNet, tuple[Tensor, ...], int], counts: Counter[str]) -> None:
    model, images, seed = case
    before = {name: tensor.clone() for name, tensor in named_tensors(model).items()}
    random = torch.get_rng_state()
    outputs(model, images)
    counts["all"] += 1
    try:
        graph = analyse(model, images)
    except ChannelError:
        counts["refused"] += 1
        return
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(t, before[name]) for name, t in named_tensors(model).items())
    plan = chosen(graph, seed)
    counts["nothing removable" if not any(map(graph.removable, graph.groups)) else "can"] += 1
    if not plan.cuts:
        return
    counts["pruned"] += 1
    again = tuple(torch.cat([x, x.flip(0) * 1.5, x[:1]]) for x in images)  # another batch size
    expected = outputs(masked(model, graph, plan), again)
    apply(plan, model)
    for one, other in zip(expected, outputs(model, again), strict=True):
        assert one.shape == other.shape
        assert (one - other).abs().max() <= 1e-9 * one.abs().max()


RELAXED = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


def run(count: int) -> Counter[str]:
    counts: Counter[str] = Counter()

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=RELAXED,
    )
    @given(networks())
    def each(case: tuple[RandomNet, tuple[Tensor, ...], int]) -> None:
        check(case, counts)

    each()
    return counts


def test_random_networks_compute_the_same_without_the_channels() -> None:
    counts = run(60)
    assert counts["pruned"] > 0.7 * counts["all"]


@pytest.mark.slow
def test_two_thousand_random_networks(capsys: pytest.CaptureFixture[str]) -> None:
    counts = run(2000)
    with capsys.disabled():
        print(f"\n{dict(counts)}: none wrong")
    assert counts["pruned"] > 0.7 * counts["all"]
