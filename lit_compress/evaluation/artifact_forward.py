"""An artefact's file in the place of the network it was made from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.utils._pytree import tree_leaves

from lit_compress.artifact import OnnxModel
from lit_compress.evaluation.export_target import named_module


@contextmanager
def in_place(module: LightningModule, model: OnnxModel) -> Iterator[None]:
    """Let a file compute what a network in the module does, until the end of the block.

    Args:
        module: A module of the class that the artefact was made from.
        model: The artefact's file; its card says which part of the module it is.

    Raises:
        InvalidArgumentError: If the module has no such part.
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

    own = target.__dict__.get("forward")
    target.forward = run
    try:
        yield
    finally:
        if own is None:
            del target.forward
        else:
            target.forward = own


def raw_test_data(datamodule: Any) -> Any:
    """Return the test data as raw pixels, which is what the file takes."""
    datamodule.prepare_data()
    datamodule.setup("test")
    return datamodule.pixels("test")
