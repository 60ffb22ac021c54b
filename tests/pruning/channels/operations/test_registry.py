import torch
from torch import Tensor, nn

from lit_compress.pruning import analyse
from lit_compress.pruning.channels.operations import HANDLERS
from lit_compress.pruning.channels.tracing.questions import INERT


def test_each_kind_of_operation_has_its_rule() -> None:
    modules = {HANDLERS[name].__module__.rpartition(".")[2] for name in HANDLERS}
    kinds = {"producers", "norms", "elementwise", "reductions", "movement", "splits", "attention"}
    assert modules == {*kinds, "registry"}


def test_questions_about_a_tensor_freeze_nothing() -> None:
    class Asking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            _ = x.shape, x.size(0), x.dim(), x.device, x.dtype, x.is_contiguous(), len(x), x.numel()
            return self.last(x)

    assert {"size", "get shape"} <= set(INERT)
    assert len(analyse(Asking(), torch.ones(2, 3)).channels) == 4


def test_unknown_operation_freezes_and_is_named() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.Flatten(), nn.Linear(4, 2))
    net[1].forward = lambda x: x.sort(1).values
    graph = analyse(net, torch.randn(2, 3))
    (reason,) = [f.reason for f in graph.frozen if f.tensor == "0.weight"]
    assert (reason.op, reason.module, reason.file) == ("sort", "1", "test_registry.py")
