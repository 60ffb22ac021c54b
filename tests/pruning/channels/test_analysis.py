import random
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_compress.errors import ChannelError
from lit_compress.pruning import ChannelGraph, analyse, apply, make_plan
from lit_compress.pruning.channels.analysis import verify
from lit_compress.pruning.channels.tracing.modules import named_tensors
from lit_compress.pruning.channels.trials.outputs import tensors_in


class Net(nn.Module):
    """Layers by name, and a forward given as a function of them and the inputs."""

    def __init__(self, forward: Callable[..., Any], **layers: nn.Module | nn.Parameter) -> None:
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.function = forward

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(self, *args, **kwargs)


def head(width: int) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 5))


def ends(**more: nn.Module) -> dict[str, nn.Module]:
    return {"a": nn.Conv2d(3, 16, 3), **more, "h": head(16)}


@pytest.fixture
def x() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(2, 3, 8, 8)


def why(graph: ChannelGraph, tensor: str) -> str:
    return "; ".join(str(f.reason) for f in graph.frozen if f.tensor == tensor)


def exact(model: nn.Module, inputs: Any) -> ChannelGraph:
    """Remove all removable channels, and compare with zeros in the inputs that read them."""
    args = inputs if isinstance(inputs, tuple) else (inputs,)
    model.eval()
    graph = analyse(model, inputs)
    plan = make_plan(graph, [n for g in graph.groups for n in g.channels[: graph.removable(g)]])
    own = named_tensors(model)
    held = {name: own[name].detach().clone() for name in graph.shapes}
    with torch.no_grad():
        for cut in plan.cuts:
            if graph.roles[cut.tensor, cut.dim] == "input":
                selected = sorted(set(range(cut.size)) - set(cut.keep))
                own[cut.tensor].index_fill_(cut.dim, torch.tensor(selected), 0)
        expected = tensors_in(model(*args))
        for name, value in held.items():
            own[name].copy_(value)
        apply(plan, model)
        found = tensors_in(model(*args))
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(one, other)
    return graph


# --- channels that can be removed --------------------------------------------------------------


def test_classes_couple_what_a_residual_adds(x: Tensor) -> None:
    net = Net(lambda s, x: s.h(s.a(x) + s.b(x)), **ends(b=nn.Conv2d(3, 16, 3)))
    graph = exact(net, x)
    (group,) = graph.groups
    assert {name for name, _ in group.keys} == {"a.weight", "a.bias", "b.weight", "b.bias"} | {
        "h.2.weight"
    }


def test_unet_loses_channels_of_skips(x: Tensor) -> None:
    def forward(s: Net, x: Tensor) -> Tensor:
        first = s.a(x).relu()
        deep = s.b(first).relu()
        return s.o(torch.cat([s.u(deep), first], 1))

    layers = {"a": nn.Conv2d(3, 8, 3, 1, 1), "b": nn.Conv2d(8, 12, 2, 2)}
    layers |= {"u": nn.ConvTranspose2d(12, 6, 2, 2), "o": nn.Conv2d(14, 2, 1)}
    assert len(exact(Net(forward, **layers), x).channels) == 8 + 12 + 6


def test_layer_used_twice_is_cut_once(x: Tensor) -> None:
    net = Net(lambda s, x, y: s.h(s.a(x)) - s.h(s.a(y)), **ends())
    assert len(exact(net, (x, x.flip(0))).channels) == 16


def test_keyword_inputs_and_dict_outputs(x: Tensor) -> None:
    def forward(s: Net, *, image: Tensor, scale: float) -> dict[str, Tensor]:
        return {"scores": s.h(s.a(image) * scale)}

    assert len(analyse(Net(forward, **ends()), {"image": x, "scale": 2.0}).channels) == 16


def test_outputs_in_objects_with_slots_are_found(x: Tensor) -> None:
    # their channels were removed, as only __dict__ was searched
    class Output:
        __slots__ = ("features", "scores")

    def forward(s: Net, x: Tensor) -> Output:
        output = Output()
        output.features = s.a(x)
        output.scores = s.h(output.features)
        return output

    assert "output of the network" in why(analyse(Net(forward, **ends()), x), "a.weight")


def test_auxiliary_head_used_in_training_only_is_cut_too(x: Tensor) -> None:
    def forward(s: Net, x: Tensor) -> Any:
        x = s.a(x)
        return (s.h(x), s.k(x)) if s.training else s.h(x)

    graph = exact(Net(forward, **ends(k=head(16))), x)
    assert ("k.2.weight", 1) in graph.channel_of


def test_part_of_a_model_is_analysed_by_its_name(x: Tensor) -> None:
    model = nn.ModuleDict({"net": nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 1))})
    assert ("net.0.weight", 0) in analyse(model, x, "net").channel_of


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_types(x: Tensor, dtype: torch.dtype) -> None:
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), head(16)).to(dtype)
    assert len(analyse(net, x.to(dtype)).channels) == 16


def test_unbatched_input(x: Tensor) -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.PReLU(), nn.AdaptiveMaxPool2d(2), nn.Flatten(0), nn.Linear(32, 2)
    )
    assert len(exact(net, x[0]).channels) == 8


def test_compiled_part_is_seen_through(x: Tensor) -> None:
    part = torch.compile(nn.Sequential(nn.Conv2d(16, 8, 1), nn.Conv2d(8, 16, 1)), backend="eager")
    assert len(exact(Net(lambda s, x: s.h(s.b(s.a(x))), **ends(b=part)), x).channels) == 40


def test_autograd_function_is_seen_through(x: Tensor) -> None:
    class Clamp(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clamp(min=0)

    assert len(exact(Net(lambda s, x: s.h(Clamp.apply(s.a(x))), **ends()), x).channels) == 16


def test_network_without_layers_has_no_channels() -> None:
    graph = analyse(nn.ReLU(), torch.ones(2, 3))
    assert (graph.channels, graph.frozen) == ((), ())


# --- frozen channels and reasons ---------------------------------------------------------------

FIXED_SIZES: dict[str, Callable[[Net, Tensor], Tensor]] = {
    "view at": lambda s, x: s.h(s.a(x).view(-1, 16, 6, 6)),
    "split at": lambda s, x: s.h(sum(s.a(x).split([8, 8], 1)).repeat(1, 2, 1, 1)),
    "getitem at": lambda s, x: s.h(torch.cat([s.a(x)[:, :8], s.a(x)[:, 8:]], 1)),
    "repeat at": lambda s, x: s.h(s.a(x).repeat(1, 16 // s.a(x).shape[1], 1, 1)),
    "numpy at": lambda s, x: s.h(torch.from_numpy(s.a(x).numpy() * 2)),
    "setitem at": lambda s, x: s.h(written(s.a(x))),
    "einsum at": lambda s, x: s.h(torch.einsum("nchw,cd->ndhw", s.a(x), torch.eye(16))),
    "computes something else": lambda s, x: s.h(s.a(x) / s.a(x).shape[1]),
    "item at": lambda s, x: s.h(s.a(x) * s.a(x).max().item()),
}


def written(x: Tensor) -> Tensor:
    x = x.clone()
    x[:, :4] = 1
    return x


@pytest.mark.parametrize(("place", "forward"), FIXED_SIZES.items(), ids=FIXED_SIZES.keys())
def test_fixed_sizes_freeze_and_are_named(
    x: Tensor, place: str, forward: Callable[[Net, Tensor], Tensor]
) -> None:
    graph = exact(Net(forward, **ends()), x)
    assert not graph.channels
    text = why(graph, "a.weight")
    if "item" not in place:
        assert place in text
    if " at" in place:
        assert "test_analysis.py:" in text


def test_assertion_on_the_width_is_named(x: Tensor) -> None:
    def forward(s: Net, x: Tensor) -> Tensor:
        x = s.a(x)
        if x.shape[1] != 16:
            raise AssertionError
        return s.h(x)

    text = why(analyse(Net(forward, **ends()), x), "a.weight")
    assert text.startswith("needs its present width: AssertionError (get shape at test_analysis.py")


def test_branch_on_a_small_width_freezes(x: Tensor) -> None:
    # a trial of a third did not come below the threshold
    def forward(s: Net, x: Tensor) -> Tensor:
        x = s.a(x)
        return s.h(x * 2 if x.shape[1] < 4 else x)

    assert not exact(Net(forward, **ends()), x).channels


def test_a_line_that_fails_in_one_call_may_be_right_in_the_next(x: Tensor) -> None:
    """A second line that failed froze what else goes through it, as if it had failed before."""

    def viewed(x: Tensor, width: int) -> Tensor:
        return x.view(-1, width, 6, 6)

    def forward(s: Net, x: Tensor) -> Tensor:
        first = s.a(x).view(-1, 16, 6, 6)
        return s.h(first) + s.i(viewed(s.b(x), 16)) + s.j(viewed(s.c(x), s.c.weight.shape[0]))

    layers = {name: nn.Conv2d(3, 16, 3) for name in "bc"} | {name: head(16) for name in "ij"}
    graph = exact(Net(forward, **ends(**layers)), x)
    assert [group.name for group in graph.groups] == ["c"]


def test_squeeze_keeps_two_channels(x: Tensor) -> None:
    # with one left, squeeze() dropped the channel dimension
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1))
    graph = exact(Net(lambda s, x: s.l(s.n(x).squeeze()), n=net, l=nn.Linear(8, 2)), x)
    assert len(graph.channels) == 6
    assert "two channels must remain" in why(graph, "n.0.weight")


@pytest.mark.parametrize("scale", [torch.zeros(()), 1e-6 * torch.ones(16, 1, 1)], ids=["0", "1e-6"])
def test_scale_of_zero_hides_no_difference(x: Tensor, scale: Tensor) -> None:
    # in such a branch anything could be removed, as the result was the same
    def forward(s: Net, x: Tensor) -> Tensor:
        x = s.a(x)
        y = s.b(x)
        return s.h(x + s.g * s.c(y / y.shape[1]))

    layers = ends(b=nn.Conv2d(16, 32, 1), c=nn.Conv2d(32, 16, 1))
    graph = analyse(Net(forward, g=nn.Parameter(scale), **layers), x)
    assert "computes something else" in why(graph, "b.weight")


def test_head_of_zeros_hides_no_difference(x: Tensor) -> None:
    net = Net(lambda s, x: s.h(s.a(x) / s.a(x).shape[1]), **ends())
    nn.init.zeros_(net.h[2].weight)
    assert not analyse(net, x).channels


def test_scripted_part_is_frozen_and_listed(x: Tensor) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        part = torch.jit.script(nn.Conv2d(16, 16, 1))
    net = Net(lambda s, x: s.h(s.b(s.a(x))) + s.a(x).sum(), **ends(b=part))
    graph = analyse(net, x)
    assert not graph.channels
    assert "can be traced" in why(graph, "b.weight")


def test_transposed_weight_is_frozen() -> None:
    net = Net(lambda s, x: F.linear(s.e(x).relu(), s.e.weight.t()), e=nn.Linear(20, 12))
    assert not exact(net, torch.randn(3, 20)).channels


# --- refusals ----------------------------------------------------------------------------------


def refusal(model: nn.Module, inputs: Any) -> str:
    with pytest.raises(ChannelError) as raised:
        analyse(model, inputs)
    return str(raised.value)


def test_nan_is_refused(x: Tensor) -> None:
    # NaN agrees with NaN, so every trial passed
    net = nn.Sequential(nn.Conv2d(3, 16, 3), head(16))
    with torch.no_grad():
        net[0].weight[0, 0] = torch.nan
    assert "check the weights for NaN" in refusal(net, x)


def test_lazy_module_is_refused(x: Tensor) -> None:
    assert "run one batch" in refusal(nn.LazyConv2d(4, 3), x)


def test_meta_device_is_refused(x: Tensor) -> None:
    assert "meta device" in refusal(nn.Conv2d(3, 4, 3, device="meta"), x)


def test_quantised_module_is_refused(x: Tensor) -> None:
    module = nn.Module()
    type(module).__module__, before = "torch.ao.nn.intrinsic.quantized", type(module).__module__
    try:
        assert "prune first" in refusal(nn.Sequential(module), x)
    finally:
        type(module).__module__ = before


def test_exported_program_is_refused(x: Tensor) -> None:
    # its eval() raises NotImplementedError
    program = torch.export.export(nn.Conv2d(3, 4, 3), (x,)).module()
    assert "exported from" in refusal(program, x)


def test_failing_forward_is_reported(x: Tensor) -> None:
    assert "fails on the example inputs: RuntimeError" in refusal(nn.Conv2d(4, 4, 3), x)


def test_generator_as_output_is_refused(x: Tensor) -> None:
    assert "returns no tensor" in refusal(Net(lambda s, x: (s.a(x) for _ in "1"), **ends()), x)


def test_verify_names_what_a_plan_breaks(x: Tensor) -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 1)).eval()
    graph = analyse(net, x)
    verify(net, x, graph, make_plan(graph, graph.channels[:3]))
    fixed = Net(lambda s, x: s.n(x) if s.n[0].weight.shape[0] == 8 else s.n(x) * 2, n=net)
    graph = analyse(net, x)
    named = make_plan(
        ChannelGraph(
            {(f"n.{name}", dim): channels for (name, dim), channels in graph.channel_of.items()},
            {(f"n.{name}", dim): role for (name, dim), role in graph.roles.items()},
            graph.groups,
            (),
            {},
            channel_count=graph.channel_count,
        ),
        graph.channels[:3],
    )
    whole = analyse(fixed, x)
    assert not whole.channels
    loose = ChannelGraph(
        {(cut.tensor, cut.dim): np.arange(cut.size) for cut in named.cuts},
        {(c.tensor, c.dim): "input" if c.dim else "filter" for c in named.cuts},
        (),
        (),
        {},
    )
    with pytest.raises(ChannelError, match="nothing was removed"):
        verify(fixed, x, loose, named)


# --- nothing changes ---------------------------------------------------------------------------


def test_model_and_random_states_are_as_before(x: Tensor) -> None:
    class Moody(nn.Module):
        """Counts, remembers, keeps statistics, constrains its weight, draws from three sources."""

        def __init__(self) -> None:
            super().__init__()
            self.a, self.h = nn.Conv2d(3, 16, 3), head(16)
            self.calls, self.last = 0, None
            self.register_buffer("replaced", torch.zeros(1))
            self.register_buffer("growing", torch.zeros(0))
            self.register_buffer("mean", torch.zeros(16))

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            self.replaced = self.replaced + 1
            self.growing = torch.cat([self.growing, self.replaced])
            self.h[2].weight.data.clamp_(-0.01, 0.01)
            self.last = self.a(x)
            self.mean.mul_(0.9).add_(self.last.mean((0, 2, 3)))
            torch.rand(1), np.random.rand(), random.random()
            return self.h(self.last * self.calls)

    model = Moody().train()
    model.h[0].eval()
    modes = [module.training for module in model.modules()]
    attributes, tensors = dict(vars(model)), named_tensors(model)
    values = {name: tensor.clone() for name, tensor in tensors.items()}
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    graph = analyse(model, x)
    assert len(graph.channels) == 16  # the counter starts from the same in each trial
    assert [module.training for module in model.modules()] == modes
    assert all(vars(model)[name] is value for name, value in attributes.items())
    assert all(tensor is tensors[name] for name, tensor in named_tensors(model).items())
    assert all(torch.equal(tensor, values[name]) for name, tensor in tensors.items())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]
    assert random.getstate() == states[2]


class Unsaved(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)
        self.register_buffer("gain", torch.ones(1, 8, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.one(x) * self.gain)


def test_channels_with_a_buffer_that_no_checkpoint_holds_stay() -> None:
    """They were cut in the fit, and full again after loading."""
    graph = analyse(Unsaved(), torch.zeros(1, 3, 4, 4))
    assert not graph.groups
    assert any("gain, which checkpoints do not store" in str(f.reason) for f in graph.frozen)


def test_what_is_no_module_and_what_it_has_not_are_named() -> None:
    """Both ended in an AttributeError."""
    with pytest.raises(ChannelError, match="expected a torch module, got str"):
        analyse("resnet18", torch.zeros(1))  # type: ignore[arg-type]
    with pytest.raises(ChannelError, match="Linear has no module 'encoder'"):
        analyse(nn.Linear(2, 2), torch.zeros(1, 2), submodule="encoder")


def test_a_forward_that_fails_is_told_in_one_line() -> None:
    """torch lists all its signatures."""
    with pytest.raises(ChannelError, match="fails on the example inputs") as failure:
        analyse(nn.Conv2d(2, 2, 1), 5)  # type: ignore[arg-type]
    assert "\n" not in str(failure.value)


class Weighted(nn.Module):
    """Holds a tensor that its forward does not use, as a loss with class weights does."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 1))
        self.register_buffer("class_weights", torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


@pytest.mark.parametrize("batch", [1, 2])
def test_positions_are_those_of_one_example_in_eval_mode(batch: int) -> None:
    """A tensor that forward does not use doubled them, and so did a batch of two."""
    graph = analyse(Weighted(), torch.ones(batch, 3, 6, 6))
    assert graph.positions == {"net.0.weight": 16, "net.2.weight": 16}
