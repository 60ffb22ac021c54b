"""The losses of distillation, compared with their formulas."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lit_compress.distillation import feature_loss, output_loss, soft_loss

SHAPES = st.sampled_from([(4, 3), (2, 5, 3), (2, 3, 4, 4)])


def random(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(SHAPES, st.floats(0.5, 20), st.integers(0, 99))
def test_soft_loss_is_hintons_formula(
    shape: tuple[int, ...], temperature: float, seed: int
) -> None:
    student, teacher = random(shape, seed), random(shape, seed + 1)
    total, count = 0.0, 0
    ours = student.movedim(1, -1).reshape(-1, shape[1]).tolist()
    theirs = teacher.movedim(1, -1).reshape(-1, shape[1]).tolist()
    for one, other in zip(ours, theirs, strict=True):
        p, q = ([math.exp(v / temperature) for v in row] for row in (other, one))
        p, q = [v / sum(p) for v in p], [v / sum(q) for v in q]
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        count += 1
    found = soft_loss(student, teacher, temperature).item()
    assert found == pytest.approx(total / count * temperature**2, abs=1e-5 * temperature**2)


@given(st.sampled_from(["classes", "labels", "values"]), SHAPES, st.integers(0, 99))
def test_equal_outputs_have_no_loss_and_others_have(
    kind: str, shape: tuple[int, ...], seed: int
) -> None:
    teacher = random(shape, seed)
    student = teacher.clone().requires_grad_()
    loss = output_loss(kind, student, teacher)  # type: ignore[arg-type]
    assert loss.item() == pytest.approx(0, abs=1e-5)
    loss.backward()
    assert student.grad is not None
    assert student.grad.abs().max() < 1e-5
    assert output_loss(kind, teacher + random(shape, seed + 1), teacher) > 1e-3  # type: ignore[arg-type]


def test_the_gradient_of_soft_classes_does_not_shrink_with_the_temperature() -> None:
    student, teacher = random((8, 5), 0), random((8, 5), 1)
    sizes = []
    for temperature in (10.0, 100.0):
        leaf = student.clone().requires_grad_()
        soft_loss(leaf, teacher, temperature).backward()
        assert leaf.grad is not None
        sizes.append(leaf.grad.norm().item())
    assert sizes[0] == pytest.approx(sizes[1], rel=0.1)


@pytest.mark.parametrize("axis", [1, -1])
def test_features_are_compared_at_the_channels_that_are_left(axis: int) -> None:
    teacher = random((2, 6, 4, 5), 0) if axis == 1 else random((2, 4, 6), 0)
    kept = torch.tensor([0, 2, 5])
    student = teacher.index_select(axis, kept)
    assert feature_loss(student, teacher, kept) == 0
    other = teacher.index_select(axis, kept) + 1
    expected = 1 / student.var(correction=0)
    assert feature_loss(other, teacher, kept).item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_teacher_with_equal_outputs_divides_by_no_zero() -> None:
    assert output_loss("values", torch.ones(2, 1), torch.ones(2, 1)) == 0
    assert torch.isfinite(output_loss("values", torch.zeros(1), torch.ones(1)))
