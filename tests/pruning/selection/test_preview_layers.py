import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from lit_compress.measure import cost
from lit_compress.pruning import analyse, apply, make_plan
from lit_compress.pruning.selection.budget import Budget
from lit_compress.pruning.selection.preview import LayerPreview, PruningPreview
from lit_compress.pruning.selection.preview_layers import preview_layers
from lit_compress.pruning.selection.state import PruningState


def look(net: nn.Module, images: Tensor, excluded: dict[str, str] | None = None) -> PruningPreview:
    """Prune a third of each group, and return what was foretold."""
    graph, before = analyse(net, images), cost(net, images)
    selected = frozenset(
        n for g in graph.groups for n in g.channels[: max(1, len(g.channels) // 3)]
    )
    budget = Budget(before.parameters, before.macs, int(graph.filters().sum()))
    found = preview_layers(net, PruningState(graph, budget), selected, excluded or {})
    apply(make_plan(graph, selected), net)
    after = cost(net, images)
    assert found.after is not None
    assert (found.after.parameters, found.after.macs) == (after.parameters, after.macs)
    return found


def layers(found: PruningPreview) -> dict[str, LayerPreview]:
    return {layer.name: layer for layer in found.layers}


class Net(nn.Module):
    """All kinds of layers that make channels."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            *(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=8), nn.ReLU()),
            *(nn.ConvTranspose2d(8, 12, 2), nn.ReLU(), nn.ConvTranspose2d(12, 12, 2, groups=12)),
            *(nn.ConvTranspose2d(12, 12, 2, groups=2), nn.ReLU(), nn.Conv2d(12, 12, 1, groups=2)),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 6), nn.ReLU()),
        )
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.net(x))


def test_each_layer_keeps_what_is_foretold() -> None:
    net = Net()
    found = layers(look(net, torch.randn(1, 3, 6, 6)))
    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    modules = {name: layer for name, layer in net.named_modules() if isinstance(layer, kinds)}
    assert found.keys() == modules.keys()
    for name, layer in modules.items():
        width = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
        assert (name, found[name].kept) == (name, width)
        assert (found[name].kept < found[name].filters) == (name != "head")


def test_an_output_cannot_go_and_says_so() -> None:
    found = layers(look(Net(), torch.randn(1, 3, 6, 6)))
    assert found["head"] == LayerPreview("head", 2, 2, 2, ("is an output of the network",))


class Parts(nn.Module):
    """A layer whose last three channels are added to the input, and one that shares its weight."""

    def __init__(self, turned: bool = False) -> None:
        super().__init__()
        self.one = nn.ConvTranspose2d(3, 8, 1) if turned else nn.Conv2d(3, 8, 1)
        self.side = nn.Conv2d(3, 5, 1)
        self.two, self.three = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.three.weight = self.two.weight
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x) + torch.cat((self.side(x), x), 1)
        return self.head(self.three(self.two(x).relu()).relu().mean((2, 3)))


@pytest.mark.parametrize("turned", [False, True])
def test_channels_of_one_layer_that_cannot_go_are_counted(turned: bool) -> None:
    found = layers(look(Parts(turned), torch.randn(1, 3, 4, 4)))["one"]
    assert found.filters == 8
    assert found.fixed == 3
    assert len(found.reasons) == 1
    assert found.kept == 7


def test_a_layer_that_shares_its_weight_is_described_like_the_other() -> None:
    net = Parts()
    found = layers(look(net, torch.randn(1, 3, 4, 4)))
    assert found["two"].kept == found["three"].kept == net.three.out_channels
    assert found["two"].reasons == found["three"].reasons


def test_a_computed_weight_is_that_of_its_layer() -> None:
    """Its filters could not go, and its row said so."""
    net = nn.Sequential(weight_norm(nn.Linear(3, 4)), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    found = layers(look(net, torch.randn(1, 3)))["0"]
    assert (found.filters, found.kept, found.fixed, found.reasons) == (4, 3, 0, ())


def test_a_layer_that_is_never_called_says_so() -> None:
    class Unused(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return self[2](self[0](x))

    net = Unused(nn.Linear(3, 4), weight_norm(nn.Linear(4, 4)), nn.Linear(4, 2))
    found = layers(look(net, torch.randn(1, 3)))["1"]
    assert (found.filters, found.kept) == (4, 4)
    assert found.reasons


def test_weights_of_other_layers_have_rows_of_their_own() -> None:
    """Torch's attention was left out of the table."""
    layer = nn.TransformerEncoderLayer(8, 4, 16, batch_first=True)
    net = nn.Sequential(nn.Linear(3, 8), layer, nn.Linear(8, 2)).eval()
    found = layers(look(net, torch.randn(1, 5, 3)))
    row = found["1.self_attn.in_proj_weight"]
    assert (row.filters, row.kept, row.fixed) == (24, 18, 0)
    assert found["1.self_attn.out_proj"].kept == 8


def test_a_layer_that_is_left_alone_gives_that_reason_first() -> None:
    net = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2))
    state = PruningState(analyse(net, torch.randn(1, 3)), Budget(38, 30))
    found = preview_layers(net, state, frozenset(), {"0": "0 is excluded", "2": "why"})
    assert layers(found)["0"] == LayerPreview("0", 6, 6, 6, ("0 is excluded",))
    assert layers(found)["2"].reasons == ("why", "is an output of the network")


def test_a_network_that_is_one_layer() -> None:
    found = look(nn.Linear(3, 2), torch.randn(1, 3))
    assert [(layer.name, layer.kept) for layer in found.layers] == [("", 2)]


def test_a_layer_that_filters_the_images_channel_by_channel_is_no_computed_one() -> None:
    """Its channels are those of the images: it makes none, and its weight is its own."""
    net = nn.Sequential(nn.Conv2d(3, 3, 3, groups=3), nn.Conv2d(3, 6, 1), nn.Conv2d(6, 2, 1))
    found = layers(look(net, torch.randn(1, 3, 4, 4)))
    assert found["0"] == LayerPreview("0", 3, 3)
