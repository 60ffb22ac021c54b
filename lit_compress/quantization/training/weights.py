"""The weights of an int8 file, computed from the weights that are trained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from lit_compress.quantization.rewrites.norms import FoldedNorm
from lit_compress.quantization.training.rounding import round_weight


@dataclass(frozen=True)
class Source:
    """A tensor that a graph reads.

    Attributes:
        name: Its name.
        axis: Axis of the output channels of an int8 weight; None if the tensor stays float.
        largest: Largest magnitude of an int8 weight, 127 or 64.
        folded: Whether a norm behind its layer is folded into it.
    """

    name: str
    axis: int | None = None
    largest: int = 127
    folded: bool = True


class FileWeights:
    """Computes what the layers of the file read: equalised, with norms folded in, and rounded.

    Args:
        folded: The norms that are folded.
        factors: By name of a tensor, what the equalisation multiplies it with.
        constants: By name, the tensors that are not trained.

    Example:
        >>> import torch
        >>> weights = FileWeights([], {"w": torch.tensor(2.0)}, {})
        >>> weights.of([Source("w", axis=0)], {"w": torch.tensor([[1.27, 0.004]])})
        [tensor([[2.5400, 0.0000]])]
    """

    def __init__(
        self,
        folded: Iterable[FoldedNorm],
        factors: Mapping[str, Tensor],
        constants: Mapping[str, Tensor],
    ) -> None:
        self._folded = {name: norm for norm in folded for name in (norm.weight, norm.new_bias)}
        self._factors = dict(factors)
        self._constants = dict(constants)

    def of(
        self, sources: Iterable[Source], trained: Mapping[str, Tensor], rounded: bool = True
    ) -> list[Tensor]:
        """Return tensors in the order of the sources; gradients pass to the trained ones.

        Args:
            sources: The tensors that are wanted.
            trained: By name, the parameters and buffers of the network.
            rounded: Whether int8 weights are rounded.
        """
        known: dict[str, Tensor] = {}

        def scaled(name: str) -> Tensor:
            tensor = trained[name] if name in trained else self._constants[name]
            factor = self._factors.get(name)
            return tensor if factor is None else tensor * factor.to(tensor.device)

        def found(name: str) -> Tensor:
            if name not in known:
                norm = self._folded.get(name)
                if norm is None:
                    known[name] = scaled(name)
                else:
                    known[norm.weight], known[norm.new_bias] = norm.tensors(scaled)
            return known[name]

        def wanted(source: Source) -> Tensor:
            tensor = found(source.name) if source.folded else scaled(source.name)
            if rounded and source.axis is not None:
                return round_weight(tensor, source.axis, source.largest)
            return tensor

        return [wanted(source) for source in sources]
