import warnings

import torch
from torch import Tensor, nn

from lit_compress.pruning.channels.operations import HANDLERS, unknown
from lit_compress.pruning.channels.tracing.calls import call_name
from lit_compress.pruning.channels.tracing.modules import named_tensors
from lit_compress.pruning.channels.tracing.trace import Trace
from lit_compress.pruning.channels.trials.calls import Calls


def traced(model: nn.Module, *inputs: Tensor) -> Trace:
    trace = Trace(model, HANDLERS, unknown)
    with torch.no_grad(), trace.watching():
        model(*inputs)
    return trace


def test_calls_are_named_without_underscores() -> None:
    names = [Tensor.add_, Tensor.__iadd__, torch.relu_, Tensor.shape.__get__]
    assert [call_name(name) for name in names] == ["add", "iadd", "relu", "get shape"]


def test_uses_and_positions_are_recorded() -> None:
    trace = traced(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1)), torch.ones(2, 3, 6, 6)
    )
    roles = {key: use.role for key, use in trace.recording.uses.items()}
    assert roles["0.weight", 0] == "filter"
    assert roles["2.weight", 1] == "input"
    assert roles["0.bias", 0] == "scale"
    assert trace.recording.positions == {"0.weight": 2 * 16, "2.weight": 2 * 16}


def test_reason_names_module_file_and_line() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x).cumsum(1).sort().values

    trace = traced(Net(), torch.ones(1, 2))
    assert any("cumsum at test_trace.py:" in str(reason) for reason in trace.labels.reasons)


def test_other_mode_counts_the_same_calls() -> None:
    model, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval(), torch.ones(1, 3, 6, 6)
    calls, trace = Calls(), traced(model, x)
    with torch.no_grad(), calls:
        model(x)
    assert len(calls.places) == trace.calls == len(trace.results) == len(trace.made_by)
    assert calls.places[-1][0] == "batch_norm"
    assert (trace.made_by[0], trace.made_by[-1]) == ("0", "1")


def test_shape_changed_in_place_freezes() -> None:
    # such a tensor lost its labels without a word
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 4, 1), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            x.squeeze_(3).squeeze_(2)
            return self.last(x)

    trace = traced(Net(), torch.ones(2, 3, 1, 1))
    assert any("changed in place" in str(reason) for reason in trace.labels.reasons)


def test_every_tensor_that_goes_into_a_call_is_seen() -> None:
    # the weight of a norm over the image counted as unused, so the model ran in training mode too
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.LayerNorm([2, 2]))
    assert traced(model, torch.ones(1, 3, 2, 2)).recording.seen >= set(named_tensors(model))


def test_warning_of_compiled_modules_on_hooks_is_held_back() -> None:
    # with warnings as errors it failed the forward
    model = torch.compile(nn.Linear(2, 2), backend="eager")
    with warnings.catch_warnings(), torch.compiler.set_stance("force_eager"):
        warnings.simplefilter("error")
        traced(model, torch.ones(1, 2))


def test_tied_tensors_have_one_name() -> None:
    first, second = nn.Linear(2, 2), nn.Linear(2, 2, bias=False)
    second.weight = first.weight
    assert list(named_tensors(nn.Sequential(first, second))) == ["0.weight", "0.bias"]
