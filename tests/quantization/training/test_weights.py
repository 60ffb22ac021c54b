"""Weights of the file are functions of those that are trained."""

from __future__ import annotations

import torch

from lit_compress.quantization.rewrites.norms import FoldedNorm
from lit_compress.quantization.training.weights import FileWeights, Source


def test_norms_are_folded_with_gradients() -> None:
    torch.manual_seed(0)
    tensors = {
        "w": torch.randn(3, 2),
        "g": torch.rand(3) + 0.5,
        "b": torch.randn(3),
        "m": torch.randn(3),
        "v": torch.rand(3) + 0.1,
    }
    live = {name: tensor.requires_grad_() for name, tensor in tensors.items()}
    norm = FoldedNorm("w", None, "w_bias", "g", "b", "m", "v", 1e-3, 0.1, 0)
    weights = FileWeights([norm], {}, {"c": torch.ones(1)})
    sources = [Source("w", 0), Source("w_bias"), Source("c")]
    weight, bias, constant = weights.of(sources, live, rounded=False)
    x = torch.randn(5, 2)
    expected = torch.nn.functional.batch_norm(
        x @ live["w"].T, live["m"].detach(), live["v"].detach(), live["g"], live["b"], eps=1e-3
    )
    torch.testing.assert_close(x @ weight.T + bias, expected)
    found = torch.autograd.grad((x @ weight.T + bias).square().sum(), [live[n] for n in "wgb"])
    wanted = torch.autograd.grad(expected.square().sum(), [live[n] for n in "wgb"])
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)
    assert constant.tolist() == [1]


def test_a_weight_that_two_layers_read_is_computed_once() -> None:
    live = {"w": torch.randn(3, 2, requires_grad=True)}
    weights = FileWeights([], {"w": torch.tensor(2.0)}, {})
    plain, rounded = weights.of([Source("w"), Source("w", 0)], live)
    assert torch.equal(plain, 2 * live["w"])
    assert not torch.equal(plain, rounded)
    assert (plain - rounded).abs().max() <= plain.abs().max() / 127
