"""Attributes that state widths follow the tensors, and come back."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils import parametrizations

from lit_compress.pruning.channels.widths import layer_widths, named_width, set_widths


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.heads, self.layer = 4, nn.Linear(8, 6)


def test_layers_state_what_their_tensors_say() -> None:
    layers: dict[nn.Module, dict[str, object]] = {
        nn.Linear(5, 3): {"out_features": 3, "in_features": 5},
        nn.Conv2d(4, 8, 3, groups=4): {"in_channels": 4, "out_channels": 8, "groups": 4},
        parametrizations.weight_norm(nn.Linear(5, 3)): {"out_features": 3, "in_features": 5},
        nn.LayerNorm(7): {"normalized_shape": (7,)},
        nn.Embedding(9, 6): {"embedding_dim": 6},
        nn.GroupNorm(2, 6): {"num_channels": 6, "num_groups": 2},
        nn.ReLU(): {},
    }
    assert all(layer_widths(layer) == widths for layer, widths in layers.items())


def test_widths_that_no_tensor_tells_have_names() -> None:
    model = nn.ModuleDict({"own": Own(), "norm": nn.BatchNorm2d(5, affine=False)})
    model["plain"] = nn.LayerNorm(3, elementwise_affine=False)
    found = {name: named_width(model, name) for name in ("own.heads", "norm", "plain", "own.no")}
    assert found == {"own.heads": 4, "norm": 5, "plain": 3, "own.no": None}


def test_former_values_are_returned_in_the_order_to_set_them_again() -> None:
    """A width that was set by a tensor and by its name came back half."""
    model = Own()
    model.layer.weight.data = torch.zeros(2, 8)
    before = set_widths(model, {id(model.layer.weight)}, {"heads": 3})
    assert (model.heads, model.layer.out_features) == (3, 2)
    for layer, name, value in before:
        setattr(layer, name, value)
    assert (model.heads, model.layer.out_features, model.layer.in_features) == (4, 6, 8)


def test_an_encoder_that_lost_heads_takes_no_fused_path() -> None:
    layer = nn.TransformerEncoderLayer(8, 4, 8, batch_first=True)
    model = nn.TransformerEncoder(layer, 1)
    assert model.use_nested_tensor
    attention = model.layers[0].self_attn
    attention.in_proj_weight.data = torch.zeros(12, 8)
    attention.out_proj.weight.data = torch.zeros(8, 4)
    set_widths(model, {id(attention.in_proj_weight), id(attention.out_proj.weight)})
    assert (model.use_nested_tensor, attention.num_heads) == (False, 2)
