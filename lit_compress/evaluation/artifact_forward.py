"""Running an artefact's file in the place of the network that it was made from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from lit_compress.artifact import OnnxModel
from lit_compress.attributes import replaced_attributes
from lit_compress.evaluation.network import named_module
from lit_compress.export.outputs import Outputs


@contextmanager
def artifact_forward(module: LightningModule, model: OnnxModel) -> Iterator[None]:
    """Run a file in the place of a network in a module, until the end of the block.

    Args:
        module: A module of the class that the artefact was made from.
        model: The artefact's file; its card names the part of the module that it was made from.

    Raises:
        InvalidArgumentError: If the module has no part of that name.
    """
    config = model.card.config if model.card is not None else {}
    made = config.get("PostTrainingQuantization", {})
    target = named_module(module, str(made.get("network") or ""))
    names = made.get("inputs") or [given.name for given in model.inputs]

    own, structure = target.forward, list[Outputs]()

    def run(*args: Any, **kwargs: Any) -> Any:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        named = dict(zip(names, tensors, strict=True))
        arrays = [named[given.name].detach().cpu().numpy() for given in model.inputs]
        found = [torch.from_numpy(array) for array in model.all_outputs(*arrays)]
        found = [output.to(tensors[0].device) for output in found]
        if len(found) == 1:
            return found[0]
        if not structure:  # what the network returns says how the outputs belong together
            with torch.no_grad():
                structure.append(Outputs.of(own(*_floats(args), **kwargs), target))
        return structure[0].structured(found)

    with replaced_attributes(target, forward=run):
        yield


def _floats(args: tuple[Any, ...]) -> Any:
    """Return arguments with real numbers in the place of pixels, which the network may not take."""

    def real(leaf: Any) -> Any:
        pixels = isinstance(leaf, Tensor) and leaf.dtype == torch.uint8
        return leaf.float() if pixels else leaf

    return tree_map(real, args)


def raw_test_data(datamodule: Any) -> Any:
    """Return the test data as raw pixels, which is what the file takes."""
    datamodule.prepare_data()
    datamodule.setup("test")
    return datamodule.pixels("test")
