"""A checkpoint that is timed: its module in eval mode, eager. It needs torch and Lightning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from lit_compress import modules
from lit_compress.benchmark.limit import Kind, best_rate
from lit_compress.benchmark.subjects.inputs import SEED, Shape, Slot
from lit_compress.benchmark.subjects.subject import EAGER
from lit_compress.benchmark.work import UncountedError, Work
from lit_compress.checkpoints.load import load_from_checkpoint
from lit_compress.checkpoints.reading import read_checkpoint
from lit_compress.errors import CheckpointError, InvalidArgumentError
from lit_compress.files.reading import short
from lit_compress.measure.cost import Inputs, batch_size, cost, forward_arguments
from lit_compress.measure.torch_runner import torch_threads
from lit_compress.runtimes.interface import Runtime
from lit_compress.timing.in_turn import Runner


class CheckpointSubject:
    """The module of a checkpoint, on the CPU, in eval mode.

    Args:
        path: The checkpoint.
        shapes: Shape of one example of each input. Default: those of the module's
            ``example_input_array``.
        model: Import path of its class; of a class of this package, the name is enough. Default:
            the class that the checkpoint names, if it is of this package.

    Attributes:
        name: The path.
        kind: ``checkpoint``.
        slots: The inputs.
        macs: None, as a checkpoint states none.

    Raises:
        CheckpointError: If the file is no checkpoint, or its class is not known.
        InvalidArgumentError: If the class cannot be imported, or the shape is not known.
    """

    def __init__(self, path: Path, shapes: Sequence[Shape] = (), model: str | None = None) -> None:
        self.name = str(path)
        self.kind = "checkpoint"
        self.macs: int | None = None
        cls = _named_class(path) if model is None else imported(model)
        self._module = load_from_checkpoint(cls, path, map_location="cpu").eval()
        self._example = _example(self._module, shapes, self.name)
        self._stated = not shapes
        self._rows = batch_size(self._example)
        self.slots = tuple(
            Slot(f"input {place}", tuple(leaf.shape[1:]), np.dtype(str(leaf.dtype)[6:]))
            for place, leaf in enumerate(tree_leaves(self._example))
            if isinstance(leaf, Tensor)
        )

    def runtimes(self, asked: Sequence[Runtime]) -> tuple[str, ...]:
        """Return the runtime of checkpoints, whatever is asked for.

        Args:
            asked: The runtimes of files.
        """
        return (EAGER,)

    def runner(self, runtime: str, threads: int, batch: int) -> Runner:
        """Return a function that runs one batch, without gradients.

        Args:
            runtime: The only one.
            threads: Number of threads, which :meth:`with_threads` sets.
            batch: Number of examples.
        """
        args, kwargs = forward_arguments(self._batch(batch))
        module = self._module

        def run() -> object:
            try:
                with torch.inference_mode():
                    return module(*args, **kwargs)
            except Exception as error:  # whatever the user's forward raises
                raise InvalidArgumentError(
                    f"{self.name} does not run a batch of {batch} ({short(error)}): give the shape "
                    "of one example with --shape, or another batch"
                ) from error

        return run

    def inputs_text(self, batch: int) -> str:
        """Return what the inputs of a batch are, in words.

        Args:
            batch: Number of examples.
        """
        return "the module's example_input_array" if self._stated else "random numbers"

    def work(self) -> Work:
        """Return the MACs of one example.

        Raises:
            UncountedError: If they cannot be counted.
        """
        try:
            counted = cost(self._module, self._batch(1))
        except Exception as error:  # whatever the user's forward raises
            raise UncountedError(f"its MACs cannot be counted ({short(error)})") from error
        if counted.uncounted:
            operators = ", ".join(counted.uncounted)
            raise UncountedError(f"the MACs of its operators {operators[:80]} are not counted")
        return Work(0, counted.macs)

    def limit(self, runtime: str, threads: int, kind: Kind) -> float:
        """Measure the most MACs a second of PyTorch on this machine, which are of float32.

        Args:
            runtime: The only one.
            threads: Number of threads.
            kind: The numbers.
        """

        def product(size: int) -> Runner:
            one = torch.ones(size, size)
            return lambda: one @ one

        # The same product, by the library of the convolutions: on some processors it is faster.
        def convolution(size: int) -> Runner:
            image, weight = torch.ones(1, size, 1, size), torch.ones(size, size, 1, 1)
            return lambda: torch.conv2d(image, weight)

        with torch_threads(threads), torch.inference_mode():
            return max(best_rate(product), best_rate(convolution))

    def with_threads(self, threads: int) -> AbstractContextManager[None]:
        """Return a block in which PyTorch has a number of threads.

        Args:
            threads: Number of threads.
        """
        return torch_threads(threads)

    def _batch(self, size: int) -> Inputs:
        """Return a batch of the example's rows, which are repeated if needed."""
        rows = torch.arange(size) % self._rows

        def sized(leaf: object) -> object:
            batched = isinstance(leaf, Tensor) and leaf.dim() and len(leaf) == self._rows
            return leaf[rows].contiguous() if batched and isinstance(leaf, Tensor) else leaf

        batch: Inputs = tree_map(sized, self._example)
        return batch


def _example(module: LightningModule, shapes: Sequence[Shape], name: str) -> Inputs:
    """Return example inputs: random ones of given shapes, or those that the module states."""
    if shapes:
        random = torch.Generator().manual_seed(SEED)
        given = tuple(torch.randn(1, *shape, generator=random) for shape in shapes)
        return given if len(given) > 1 else given[0]
    stated = module.example_input_array
    if stated is None:
        raise InvalidArgumentError(
            f"the module of {name} ({type(module).__name__}) has no example_input_array, so the "
            "shape of its inputs is not known: give that of one example, such as --shape 3,32,32"
        )
    example: Inputs = tree_map(lambda v: v.cpu() if isinstance(v, Tensor) else v, stated)
    return example


def _named_class(path: Path) -> type[LightningModule]:
    """Return a class of this package that a checkpoint names; no other one is imported."""
    content = read_checkpoint(path, objects="stand-ins")
    hyperparameters = content.get(LightningModule.CHECKPOINT_HYPER_PARAMS_KEY)
    named = hyperparameters.get("_class_path") if isinstance(hyperparameters, Mapping) else None
    found = _packaged(str(named).rpartition(".")[2]) if named else None
    if found is not None and str(named).startswith(f"{modules.__name__}."):
        return found
    names = f"names the class {named}, which is not imported" if named else "names no class"
    raise CheckpointError(
        f"{path} {names}: give the class of its module with --model package.module.Class"
    )


def _packaged(name: str) -> type[LightningModule] | None:
    found = getattr(modules, name, None) if name in modules.__all__ else None
    return found if isinstance(found, type) and issubclass(found, LightningModule) else None


def imported(model: str) -> type[LightningModule]:
    """Return the class that the user names.

    Args:
        model: Its import path; of a class of this package, the name is enough.

    Raises:
        InvalidArgumentError: If it cannot be imported, or is no LightningModule.
    """
    module, _, name = model.rpartition(".")
    if not module and (found := _packaged(model)) is not None:
        return found
    try:
        chosen = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidArgumentError(
            f"--model {model} cannot be imported ({short(error)}): give package.module.Class of a "
            "module on the PYTHONPATH"
        ) from error
    if not isinstance(chosen, type) or not issubclass(chosen, LightningModule):
        raise InvalidArgumentError(f"--model {model} is not a LightningModule")
    return chosen
