"""The forward of a network as its int8 file computes it, in the place of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from lit_compress.attributes import replaced_attributes
from lit_compress.callbacks._quantization.settings import Settings
from lit_compress.errors import ExportError
from lit_compress.evaluation.export_target import ExportTarget
from lit_compress.export.outputs import Outputs, as_tensors
from lit_compress.export.signature import Batch, Signature, as_tuple, first_rows
from lit_compress.quantization.skip import select_layers
from lit_compress.quantization.training.graph import FakeQuantizedGraph
from lit_compress.quantization.training.ranges import Ranges

#: Rows on which the gradients of the graph are compared with the network's own.
COMPARED = 4
#: Largest relative difference of the gradients: they may differ where a rectifier begins.
TOLERANCE = 0.05


@dataclass(frozen=True)
class Place:
    """Where the network is, with what it takes and returns; the same in all processes.

    Attributes:
        path: Name of the part that the user's steps call.
        inner: Name of the part that is captured.
        example: Some of its inputs.
        signature: The tensors among its arguments.
        outputs: The tensors in what it returns.
    """

    path: str
    inner: str
    example: Batch
    signature: Signature
    outputs: Outputs

    @classmethod
    def of(cls, network: ExportTarget) -> Place:
        """Return the place of a network that was found.

        Args:
            network: The network.
        """
        rows = first_rows([as_tuple(batch) for batch in network.inputs], COMPARED)
        example = rows[0] if network.signature.plain else rows
        return cls(network.path, network.inner, example, network.signature, network.outputs)

    def target(self) -> ExportTarget:
        """Return the network with the example as its only inputs."""
        return ExportTarget(self.path, self.inner, (self.example,), self.signature, self.outputs)


class FakeForward:
    """A network that computes as its int8 file does, with the weights of a module.

    Args:
        copy: A copy of the module, on the CPU.
        place: Where the network is.
        ranges: The ranges of its activations.
        settings: How the file is made.

    Attributes:
        calls: How often it was called.
        batched: Whether norms use the statistics of the batch in training.

    Raises:
        ExportError: If the network cannot be captured or trained as a graph.
    """

    def __init__(
        self, copy: LightningModule, place: Place, ranges: Ranges, settings: Settings
    ) -> None:
        from lit_compress.quantization.convert import Calibrated

        self.calls = 0
        self.batched = False
        #: By module, the parts that own the tensors of its network.
        self._owners: WeakKeyDictionary[nn.Module, list[tuple[str, nn.Module, str]]]
        self._owners = WeakKeyDictionary()
        self.place = place
        captured = place.target().captured(copy).eval()
        names = {id(tensor): name for name, tensor in _tensors(copy)}
        self._names = {name: names[id(tensor)] for name, tensor in _tensors(captured)}
        calibrated = Calibrated(
            captured,
            [],
            place.example,
            weight_range=settings.weight_range,
            names=place.signature.names,
            ranges=ranges,
        )
        prefix = f"{place.inner}." if place.inner else ""
        layers, weighted = calibrated.layers, calibrated.weighted
        floats = select_layers(settings.skip, layers, weighted, prefix)
        self._graph: FakeQuantizedGraph = calibrated.trainable(floats)

    @contextmanager
    def forwards(self, module: LightningModule) -> Iterator[None]:
        """Put it in the place of the network's own forward until the end of the block.

        Args:
            module: The module, or a copy of it.
        """
        part = module.get_submodule(self.place.inner)
        with replaced_attributes(part, forward=self._forward(module)):
            yield

    def outputs(self, module: LightningModule, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the outputs of a module's network in eval mode.

        Args:
            module: The module, or a copy of it.
            inputs: The inputs of the network.
        """
        return self._graph(self._live(module), inputs)

    def droppers(self, module: LightningModule) -> list[nn.Module]:
        """Return the parts of a module's network whose dropout goes on in training.

        Args:
            module: The module, or a copy of it.
        """
        network = module.get_submodule(self.place.inner)
        return [dropout.part(network) for dropout in self._graph.dropouts]

    def check_gradients(self, copy: LightningModule) -> None:
        """Check that the graph without rounding has the gradients of the network.

        Args:
            copy: A copy of the module, on the CPU; its gradients are lost.

        Raises:
            ExportError: If it has not, as where the forward detaches a tensor.
        """
        network = self.place.target().captured(copy.eval())
        inputs = [tensor.clone() for tensor in as_tuple(self.place.example)]
        own = _gradients(copy, lambda: as_tensors(network(*inputs)))
        live = self._live(copy)
        found = _gradients(copy, lambda: self._graph(live, inputs, rounded=False))
        for name in own | found:
            gradient, other = own.get(name), found.get(name)
            if gradient is None or other is None or _differ(gradient, other):
                raise ExportError(
                    f"{name} gets another gradient in the captured graph than in the forward of "
                    f"{type(copy).__name__}, so it cannot be trained with fake quantisation: look "
                    "for detach(), no_grad() or .data in that forward, or use "
                    "PostTrainingQuantization"
                )

    def _forward(self, module: LightningModule) -> Callable[..., Any]:
        live, place = self._live(module), self.place
        part = module.get_submodule(place.inner)

        def forward(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            inputs = place.signature.tensors(args, kwargs)
            network = part if part.training else None
            batched = part.training and self.batched
            found = self._graph(live, inputs, network, batched=batched)
            return place.outputs.structured(found)

        return forward

    def _live(self, module: LightningModule) -> dict[str, Tensor]:
        """Return the tensors that the network has now: a buffer may be another one in each step."""
        if module not in self._owners:  # a walk through all modules, so once and not in each step
            parts = ((name, path.rpartition(".")) for name, path in self._names.items())
            self._owners[module] = [
                (name, module.get_submodule(prefix), attribute)
                for name, (prefix, _, attribute) in parts
            ]
        return {name: getattr(owner, attr) for name, owner, attr in self._owners[module]}


def _gradients(copy: LightningModule, run: Callable[[], tuple[Tensor, ...]]) -> dict[str, Tensor]:
    """Return the gradients of the sum of squares of all outputs, by parameter."""
    copy.zero_grad()
    with torch.enable_grad():
        found = [output for output in run() if output.requires_grad]
        if found:
            total = torch.stack([output.float().square().sum() for output in found]).sum()
            torch.autograd.backward(total)
    gradients = {
        name: parameter.grad.clone()
        for name, parameter in copy.named_parameters()
        if parameter.grad is not None
    }
    copy.zero_grad()
    return gradients


def _differ(gradient: Tensor, other: Tensor) -> bool:
    return float((gradient - other).norm()) > TOLERANCE * float(gradient.norm()) + 1e-6


def _tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    ]
