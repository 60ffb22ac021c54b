"""The choice of channels: what it foretells is what is left, and what is gone counts no more."""

from __future__ import annotations

import copy
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from lit_compress.errors import ChannelError, PatternError
from lit_compress.measure import cost
from lit_compress.pruning import Importance, apply
from lit_compress.pruning.channels.tracing.modules import named_tensors
from lit_compress.pruning.importance import L1, L2, BatchNormScale, Fpgm, Taylor
from lit_compress.pruning.rules.rule import Rule
from lit_compress.pruning.selection.analysis import parameter_names
from lit_compress.pruning.selection.selector import PruningStep
from lit_compress.pruning.selection.uniform import UniformSelector

#: With this target, the progress of the schedule is the share.
ALL = Fraction(1)
IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Two branches that are added, norms, a depthwise conv, a transposed one, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU())
        self.left = nn.Sequential(nn.Conv2d(12, 16, 1), nn.BatchNorm2d(16))
        self.right = nn.Sequential(
            *(nn.Conv2d(12, 12, 3, padding=1, groups=12), nn.BatchNorm2d(12), nn.ReLU()),
            *(nn.ConvTranspose2d(12, 16, 1), nn.BatchNorm2d(16)),
        )
        self.head = nn.Sequential(nn.Linear(16, 10), nn.ReLU(), nn.Linear(10, 2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head((self.left(x) + self.right(x)).relu().mean((2, 3)))


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    made = Net().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) / 3)
    return made


NETS = {
    "small": (Net, (2, 3, 8, 8)),
    "squeezenet1_1": (torchvision.models.squeezenet1_1, (1, 3, 64, 64)),
    "mobilenet_v3_small": (torchvision.models.mobilenet_v3_small, (1, 3, 64, 64)),
    "shufflenet_v2_x0_5": (torchvision.models.shufflenet_v2_x0_5, (1, 3, 64, 64)),
    "resnet18": (torchvision.models.resnet18, (1, 3, 64, 64)),
}


@pytest.mark.parametrize("of", ["filters", "parameters", "macs"])
@pytest.mark.parametrize("name", NETS)
def test_what_is_foretold_is_what_is_left(name: str, of: Any) -> None:
    make, shape = NETS[name]
    torch.manual_seed(0)
    net, images = make().eval(), torch.randn(shape)
    selector = UniformSelector(ALL, of=of, scope="global")
    state, before = selector.analyse(net, images), cost(net, images)
    assert (state.budget.parameters, state.budget.macs) == (before.parameters, before.macs)
    selection = selector.select(net, state, PruningStep(Fraction(1, 3)))
    preview = selector.preview(net, state, selection)
    saved = state.saved(of, parameter_names(net), selection.selected)
    apply(state.plan(selection.selected), net)
    after = cost(net, images)
    assert preview.before == state.budget
    assert (preview.after.parameters, preview.after.macs) == (after.parameters, after.macs)
    total = {"filters": state.budget.filters, "parameters": before.parameters}.get(of, before.macs)
    assert saved == pytest.approx(total / 3, rel=0.05)
    layers = {layer.name: layer for layer in preview.layers}
    for part, layer in net.named_modules():
        if part in layers:
            width = getattr(layer, "out_channels", None) or layer.out_features
            assert layers[part].kept == width, part


@pytest.mark.parametrize("scope", ["local", "global"])
def test_a_target_of_macs_on_a_transformer_is_a_share_of_all_its_products(scope: Any) -> None:
    """Those of its attention were left out, which are most of them where there are many tokens."""
    torch.manual_seed(0)
    net, images = (
        VisionTransformer(64, 4, 2, 8, 32, 16, num_classes=5).eval(),
        torch.randn(1, 3, 64, 64),
    )
    before, tokens = cost(net, images), 16 * 16 + 1
    attention = 2 * (2 * tokens**2 * 32)
    assert attention > before.macs / 2
    selector = UniformSelector(Fraction(1, 2), of="macs", scope=scope)
    state = selector.analyse(net, images)
    selection = selector.select(net, state, PruningStep(Fraction(1)))
    preview = selector.preview(net, state, selection)
    apply(state.plan(selection.selected), net)
    after = cost(net, images)
    assert (preview.before, preview.after.macs) == (state.budget, after.macs)
    # To half a head: its products, and its rows in the four layers around them.
    head = attention / 16 + 4 * tokens * 4 * 32
    assert abs(before.macs / 2 - after.macs) <= head / 2


@pytest.mark.parametrize("scope", ["local", "global"])
@pytest.mark.parametrize("importance", [L1(), L2(), BatchNormScale(), Fpgm()])
def test_scores_are_as_if_removed_channels_were_gone(
    importance: Importance, scope: Any, net: nn.Module
) -> None:
    """Held at zero or cut out: the next choice is the same."""
    selector = UniformSelector(ALL, scope=scope, importance=importance)
    state = selector.analyse(net, IMAGES)
    whole, held = copy.deepcopy(net), copy.deepcopy(state)
    for share in (Fraction(1, 4), Fraction(1, 2), Fraction(3, 4)):
        selected = selector.select(net, state, PruningStep(share)).selected
        assert selector.select(whole, held, PruningStep(share)).selected == selected
        assert selected > state.selected
        apply(state.plan(selected), net)
        state.select(selected)
        state.commit()
        held.select(selected)
    assert selector.select(net, state, PruningStep(Fraction(3, 4))).selected == state.selected


@pytest.mark.parametrize("removed", [False, True])
def test_gathered_scores_of_gone_channels_are_left_out(removed: bool, net: nn.Module) -> None:
    selector = UniformSelector(ALL, scope="global", importance=Taylor())
    state = selector.analyse(net, IMAGES)
    generator = torch.Generator().manual_seed(0)
    makers = {n: d for (n, d), role in state.graph.roles.items() if role == "filter"}
    shapes = {n: t.shape for n, t in named_tensors(net).items()}
    scores = {n: torch.rand(shapes[n][d], generator=generator).double() for n, d in makers.items()}
    selected = selector.select(net, state, PruningStep(Fraction(1, 4)), scores=scores).selected
    totals = {
        number: sum(
            float(scores[part.tensor][list(part.indices)].sum())
            for part in state.graph.slices(number)
            if part.role == "filter"
        )
        for number in state.graph.channels
    }
    ranked = sorted(totals, key=totals.__getitem__)
    assert selected == frozenset(ranked[: len(selected)])
    state.select(selected)
    if removed:
        plan = state.plan(selected)
        apply(plan, net)
        state.commit()
        kept = {n: plan.by_tensor().get(n, {}).get(d) for n, d in makers.items()}
        scores = {n: s[list(kept[n].keep)] if kept[n] else s for n, s in scores.items()}
    more = selector.select(net, state, PruningStep(Fraction(1, 2)), scores=scores).selected
    assert more == frozenset(ranked[: len(more)])
    assert more > selected


def test_without_gathered_scores_the_norm_decides(net: nn.Module) -> None:
    taylor, norm = UniformSelector(ALL, importance=Taylor()), UniformSelector(ALL, importance=L2())
    state = taylor.analyse(net, IMAGES)
    share = Fraction(1, 2)
    assert (
        taylor.select(net, state, PruningStep(share)).selected
        == norm.select(net, state, PruningStep(share)).selected
    )


class Counting(Net):
    """Counts its calls, and draws a random number in each."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.seen = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.seen += 1
        return super().forward(x + 0 * torch.rand(()))


def test_opening_changes_nothing() -> None:
    """To count MACs, the network used to be run once with all that its forward changes."""
    net = Counting().train()
    before, state = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    UniformSelector(ALL).analyse(net, IMAGES)
    assert net.training
    assert net.seen == 0
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_part_is_looked_at_alone(net: nn.Module) -> None:
    outer = nn.ModuleDict({"net": net, "other": nn.Linear(5, 5)})
    selector = UniformSelector(ALL, exclude=["net.head.*"])
    state = selector.analyse(outer, IMAGES, "net")
    assert state.budget.macs == cost(net, IMAGES).macs
    assert state.budget.parameters == cost(net, IMAGES).parameters
    assert state.budget.filters == 12 + 12 + 16 + 16
    preview = selector.preview(
        outer, state, selector.select(outer, state, PruningStep(Fraction(1, 2)))
    )
    layers = {layer.name: layer for layer in preview.layers}
    assert layers["net.stem.0"].kept == 6
    assert layers["net.head.0"].reasons == (
        "net.head.0 is excluded, and its channels are coupled with these",
    )
    assert layers["other"].kept == 5


def test_rules_are_due_by_as_much_as_the_schedule(net: nn.Module) -> None:
    rules = [Rule("stem.0", Fraction(3, 4), "here:1"), Rule("head.*", None, "here:2")]
    selector = UniformSelector(Fraction(1, 2), rules=rules)
    state = selector.analyse(net, IMAGES)
    for progress in (Fraction(0), Fraction(1, 3), Fraction(1)):
        selected = selector.select(net, state, PruningStep(progress)).selected
        lost = {
            name: int(np.isin(state.graph.channel_of[name, 0], list(selected)).sum())
            for name in ("stem.0.weight", "left.0.weight", "head.0.weight")
            if (name, 0) in state.graph.channel_of
        }
        assert lost["stem.0.weight"] == 9 * progress
        assert lost["left.0.weight"] == -(-16 * progress // 2)
        assert lost["head.0.weight"] == 0


def test_weights_that_diverged_are_refused(net: nn.Module) -> None:
    with torch.no_grad():
        net.left[0].bias[3] = torch.nan
    with pytest.raises(PatternError, match=r"left\.0\.bias holds NaN"):
        UniformSelector(ALL).analyse(net, IMAGES)


def test_lazy_layers_are_told_of(net: nn.Module) -> None:
    """The look for NaN used to fail on them first, in torch's words."""
    net.head[2] = nn.LazyLinear(2)
    with pytest.raises(ChannelError, match=r"head\.2\.weight is lazy"):
        UniformSelector(ALL).analyse(net, IMAGES)


@torch.no_grad()
def test_half_of_the_parameters_of_a_vision_transformer_go_with_heads() -> None:
    """Only the MLPs could lose anything: at most 0.47 of the parameters."""
    torch.manual_seed(0)
    sizes = {"num_layers": 12, "num_heads": 3, "hidden_dim": 192, "mlp_dim": 768}  # ViT-tiny
    vit = torchvision.models.VisionTransformer
    net = vit(image_size=32, patch_size=16, num_classes=10, **sizes).double().eval()
    x = torch.randn(2, 3, 32, 32).double()
    selector = UniformSelector(Fraction(1, 2), of="parameters")
    state = selector.analyse(net, x)
    plan = state.plan(selector.select(net, state).selected)
    small = copy.deepcopy(net)
    apply(plan, small)
    left = sum(p.numel() for p in small.parameters()) / sum(p.numel() for p in net.parameters())
    assert 0.49 <= left <= 0.51
    heads = [
        layer.num_heads for layer in small.modules() if isinstance(layer, nn.MultiheadAttention)
    ]
    assert len(heads) == 12
    assert min(heads) < 3
    own = dict(net.named_parameters())
    for cut in plan.cuts:
        if state.graph.roles[cut.tensor, cut.dim] == "input":
            gone = sorted(set(range(cut.size)) - set(cut.keep))
            own[cut.tensor].index_fill_(cut.dim, torch.tensor(gone), 0)
    torch.testing.assert_close(small(x), net(x))
