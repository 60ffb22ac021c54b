"""The two networks of a trial: one that ignores a plan's channels, and one without them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lit_compress.pruning.channels.graph import Key
from lit_compress.pruning.channels.plan import Plan
from lit_compress.pruning.channels.surgery import cut_tensor, replaced, tensor_at
from lit_compress.pruning.channels.tracing.modules import named_tensors
from lit_compress.pruning.channels.trials.narrowed import NarrowedInputs
from lit_compress.pruning.channels.trials.outputs import Run, agree, comparable, outputs_of

Outputs = list[list[Tensor]]
#: The tensors of a model by name, and noisy copies of some of them.
NoisyTensors = tuple[Mapping[str, Tensor], dict[str, Tensor]]


@dataclass(frozen=True)
class Pair:
    """Two networks to compare. Parameters that could hide a difference have noise in both.

    Attributes:
        model: The model; it is not changed.
        plan: The channels that go.
        noisy: By name, what replaces tensors of the model in both networks.
        cut: By name, what replaces tensors in the network without the channels.
    """

    model: nn.Module
    plan: Plan
    noisy: dict[str, Tensor]
    cut: Mapping[str, Tensor]

    @classmethod
    def of(cls, model: nn.Module, plan: Plan, tensors: NoisyTensors | None = None) -> Pair:
        """Return the networks of a model and a plan.

        Args:
            model: The model.
            plan: The channels that go.
            tensors: The tensors of the model, if they are known already.
        """
        own, noisy = tensors or noisy_tensors(model)
        cut = {
            name: cut_tensor(noisy.get(name, own[name].detach()), dims)
            for name, dims in plan.by_tensor().items()
        }
        return cls(model, plan, noisy, noisy | cut)

    def whole(self, runs: Sequence[Run], *modes: AbstractContextManager[object]) -> Outputs:
        """Return the outputs of the network that has all channels, in modes that ignore some."""
        with ExitStack() as stack:
            stack.enter_context(replaced(self.model, self.noisy))
            for mode in modes:
                stack.enter_context(mode)
            return [outputs_of(run) for run in runs]

    def narrow(self, runs: Sequence[Run], *modes: AbstractContextManager[object]) -> Outputs:
        """Return the outputs of the network without the channels."""
        with ExitStack() as stack:
            stack.enter_context(replaced(self.model, self.cut, self.plan.widths))
            for mode in modes:
                stack.enter_context(mode)
            return [outputs_of(run) for run in runs]

    def agrees(
        self, runs: Sequence[Run], roles: Mapping[Key, str], names: Sequence[str] | None = None
    ) -> bool:
        """Tell whether both compute the same, where all layers that read channels are known.

        If not, the layers may read them in a way that only a trace can follow.

        Args:
            runs: Runs of the model.
            roles: By tensor and dimension, what the tensor does with the channels.
            names: The names of the calls of the runs, if they are known.
        """
        try:
            with replaced(self.model, self.noisy):
                inputs = NarrowedInputs(self._inputs(roles), names)
                with inputs:
                    expected = [outputs_of(run) for run in runs]
            known = not inputs.unread and all(map(comparable, expected))
            return known and all(map(agree, expected, self.narrow(runs)))
        except Exception:  # of the model's own code; runs that are watched tell why and where
            return False

    def _inputs(self, roles: Mapping[Key, str]) -> dict[int, tuple[int, Tensor]]:
        """Return what of the weights stays that read channels, by ``id`` of the weight."""
        return {
            id(tensor_at(self.model, cut.tensor)): (cut.dim, torch.from_numpy(cut.indices))
            for cut in self.plan.cuts
            if roles.get((cut.tensor, cut.dim)) == "input"
        }


def noisy_tensors(model: nn.Module) -> NoisyTensors:
    """Return the tensors of a model, and noisy copies of those that could hide a difference."""
    own = named_tensors(model)
    return own, _perturbed(own)


def _perturbed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return noisy copies of the parameters that could hide a difference."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: tensor.detach() + _noise(tensor.shape, generator).to(tensor.device, tensor.dtype)
        for name, tensor in tensors.items()
        if isinstance(tensor, nn.Parameter)
        and tensor.is_floating_point()
        and _can_hide_channels(tensor)
    }


def _can_hide_channels(tensor: Tensor) -> bool:
    """Tell whether a tensor is a vector, or constant: a head of zeros, a layer scale of 1e-6."""
    if tensor.numel() <= max(tensor.shape, default=1):
        return True
    first = tensor[(0,) * tensor.dim()]
    return bool((tensor[0] == first).all()) and bool((tensor == first).all())


def _noise(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Return noise: positive for vectors, since some are under a root; of norm 1 by filter."""
    if shape.numel() <= max(shape, default=1):
        return 0.1 * torch.rand(shape, generator=generator)
    width: float = (shape[0] / shape.numel()) ** 0.5
    return width * torch.randn(shape, generator=generator)
