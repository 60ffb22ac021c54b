"""Running an artefact's file in the place of the network that it was made from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.utils._pytree import tree_leaves

from lit_compress.artifact import OnnxModel
from lit_compress.attributes import replaced_attributes
from lit_compress.evaluation.network import named_module


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

    def run(*args: Any, **kwargs: Any) -> Tensor:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        named = dict(zip(names, tensors, strict=True))
        arrays = [named[given.name].detach().cpu().numpy() for given in model.inputs]
        outputs = torch.from_numpy(model(*arrays))
        return outputs.to(tensors[0].device)

    with replaced_attributes(target, forward=run):
        yield


def raw_test_data(datamodule: Any) -> Any:
    """Return the test data as raw pixels, which is what the file takes."""
    datamodule.prepare_data()
    datamodule.setup("test")
    return datamodule.pixels("test")
