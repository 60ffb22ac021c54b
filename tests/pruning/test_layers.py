import pytest
import torch
from torch import nn

from lit_compress.errors import PatternError
from lit_compress.pruning import prunable_weights


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.body = nn.Sequential(nn.Conv1d(4, 4, 1), nn.ConvTranspose2d(4, 4, 2))
        self.head = nn.Linear(4, 2)


def test_conv_and_linear_weights_in_order_and_nothing_else() -> None:
    found = prunable_weights(Net())
    assert list(found) == ["stem.weight", "body.0.weight", "body.1.weight", "head.weight"]


def test_globs_on_layer_and_weight_names() -> None:
    net = Net()
    assert list(prunable_weights(net, ["body.*"])) == ["body.0.weight", "body.1.weight"]
    assert list(prunable_weights(net, ["head.weight"])) == ["head.weight"]
    assert list(prunable_weights(net, ["*"], ["stem", "body.*"])) == ["head.weight"]


def test_the_module_itself_may_be_a_layer() -> None:
    assert list(prunable_weights(nn.Linear(2, 2))) == ["weight"]


def test_a_shared_weight_comes_once() -> None:
    net = Net()
    net.twin = nn.Linear(4, 2)
    net.twin.weight = net.head.weight
    assert [name for name in prunable_weights(net) if "head" in name or "twin" in name] == [
        "head.weight"
    ]


def test_a_pattern_without_a_match_names_what_there_is() -> None:
    with pytest.raises(PatternError, match=r"include: the pattern 'bdy.0'.*look like: body.0"):
        prunable_weights(Net(), ["bdy.0"])
    with pytest.raises(PatternError, match="exclude: the pattern 'nothing'"):
        prunable_weights(Net(), exclude=["nothing"])


def test_a_pattern_that_lacks_the_prefix_is_told() -> None:
    wrapped = nn.Module()
    wrapped.model = Net()
    with pytest.raises(PatternError, match=r"look like: model.body.0, model.body.1"):
        prunable_weights(wrapped, ["body.*"])


def test_nothing_left_is_refused() -> None:
    with pytest.raises(PatternError, match="has no conv or linear layer to prune"):
        prunable_weights(Net(), exclude=["*"])
    with pytest.raises(PatternError, match="has no conv or linear layer"):
        prunable_weights(nn.ReLU())


def test_lazy_and_parametrised_layers_are_refused_by_name() -> None:
    with pytest.raises(PatternError, match="layer '1' is lazy"):
        prunable_weights(nn.Sequential(nn.Linear(2, 2), nn.LazyLinear(2)))
    weird = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)))
    with pytest.raises(PatternError, match="layer '0' has a parametrised weight"):
        prunable_weights(weird)
    assert torch.is_tensor(weird[0].weight)
