"""Whole numbers of a model know their names while it is traced."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from lit_compress.pruning import analyse, apply, make_plan
from lit_compress.pruning.channels.tracing.counts import Count, count_at, counted


class Generator(nn.Module):
    """Makes an image from a vector: the width of the image is an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.width, self.side, self.training_steps, self.fast = 8, 2, 0, True
        self.start, self.end = nn.Linear(3, 32), nn.Conv2d(8, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.start(x).view(-1, self.width, self.side, self.side))


def test_numbers_know_their_names_until_the_end() -> None:
    model = nn.Sequential(Generator())
    with counted(model):
        width = model[0].width
        assert isinstance(width, Count)
        assert (width, width.owner, width + 1) == (8, "0.width", 9)
        assert type(copy.deepcopy(width)) is int
        assert type(model[0].fast) is bool
        assert type(model[0].training_steps) is int
        assert type(model[0].end.out_channels) is int  # a layer of torch
    assert all(type(value) is not Count for value in vars(model[0]).values())


def test_a_number_that_the_model_changed_stays_changed() -> None:
    model = Generator()
    with counted(model):
        model.side = 3
    assert (model.side, type(model.width)) == (3, int)


def test_an_attribute_is_found_by_its_name() -> None:
    model = nn.Sequential(Generator())
    assert count_at(model, "0.width") == (model[0], "width", 8)
    for name in ("0.end.out_channels", "0.fast", "0.missing", "1.width", "width", ""):
        assert count_at(model, name) is None


@torch.no_grad()
def test_the_width_of_an_image_becomes_smaller() -> None:
    """The reshape raised without some channels, so they were frozen."""
    torch.manual_seed(0)
    model, x = Generator().eval(), torch.randn(4, 3)
    graph = analyse(model, x)
    assert model.width == 8
    assert graph.widths["width"].tolist() == list(graph.groups[0].channels)
    plan = make_plan(graph, graph.channels[:3])
    assert plan.widths == {"width": 5}
    model.end.weight[:, :3] = 0
    expected = model(x)
    apply(plan, model)
    torch.testing.assert_close(model(x), expected)
    assert (model.width, model.start.out_features) == (5, 20)
