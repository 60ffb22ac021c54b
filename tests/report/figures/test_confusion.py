"""Counts by label and answer."""

from __future__ import annotations

import pytest

from lit_compress.artifact import Metric
from lit_compress.report.figures import confusion_heat_map
from lit_compress.report.figures.confusion import Counts, square


def test_a_cell_is_a_share_of_its_label() -> None:
    mesh = confusion_heat_map(((3, 1), (0, 0))).axes[0].collections[0]
    assert mesh.get_array().tolist() == [[0.75, 0.25], [0, 0]]


def test_labels_are_at_the_middle_of_their_cells() -> None:
    axes = confusion_heat_map(((3, 1), (0, 0))).axes[0]
    assert (axes.get_xlim(), axes.get_ylim()) == ((-0.5, 1.5), (1.5, -0.5))


@pytest.mark.parametrize("counts", [None, (), ((1, 2), (3,)), ((1, 2),)])
def test_only_square_counts(counts: Counts | None) -> None:
    assert square(Metric("val_acc", 1.0, "val", 9, confusion=counts)) is None
    assert square(None) is None
