"""Runners are called in eval mode, with the threads that were asked for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lit_compress.measure import compare, module_runner
from lit_compress.measure.torch_runner import torch_threads


def test_torch_threads_are_put_back_after_an_error() -> None:
    torch.set_num_threads(2)

    def fail() -> None:
        raise OSError("broken runner")

    with pytest.raises(OSError, match="broken runner"):
        compare({"a": fail}, threads=1)
    assert torch.get_num_threads() == 2
    with pytest.raises(OSError, match="block"), torch_threads(1):
        raise OSError("block")
    assert torch.get_num_threads() == 2


class Spy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.modes: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.modes.append(self.norm.training)
        return self.norm(x)


@pytest.mark.parametrize("training", [True, False])
def test_module_runner_is_in_eval_mode_without_gradients(training: bool) -> None:
    module, inputs = Spy().train(training), torch.randn(4, 3)
    run = module_runner(module, inputs)
    outputs = [run(), run()]
    assert module.modes == [False, False]
    assert module.training is module.norm.training is training
    assert module.norm.num_batches_tracked == 0
    for output in outputs:
        assert isinstance(output, Tensor)
        assert not output.requires_grad
        torch.testing.assert_close(output.clone(), inputs / (1 + 1e-5) ** 0.5)


def test_module_runner_puts_a_mixed_mode_back() -> None:
    module = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout()).train()
    module[0].eval()
    module_runner(module, torch.randn(4, 3))()
    assert [child.training for child in module] == [False, True]
