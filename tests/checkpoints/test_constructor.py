"""What a constructor takes from a file, and what only the user can give."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn

from lit_compress.checkpoints.constructor import (
    check_given,
    check_names,
    check_parsed,
    without_objects,
)
from lit_compress.checkpoints.reading import read_checkpoint
from lit_compress.errors import CheckpointError

KEY = LightningModule.CHECKPOINT_HYPER_PARAMS_KEY


class Plain(LightningModule):
    def __init__(self, width: int = 3, act: Any = None) -> None:
        super().__init__()


class Open(LightningModule):
    def __init__(self, **arguments: Any) -> None:
        super().__init__()


def content(path: Path, **values: Any) -> dict[str, Any]:
    """Save hyperparameters and a weight, and read them with stand-ins."""
    torch.save({"state_dict": {"w": torch.ones(2)}, KEY: values}, path)
    return read_checkpoint(path, objects="stand-ins")


def test_plain_values_stay_and_given_objects_are_left_out(tmp_path: Path) -> None:
    read = content(tmp_path / "a.ckpt", width=7, act=nn.ReLU())
    kept = without_objects(Plain, read, {"act": nn.ReLU()})
    assert kept[KEY] == {"width": 7}
    assert torch.equal(kept["state_dict"]["w"], torch.ones(2))


def test_an_object_that_is_not_given_is_named_with_its_class(tmp_path: Path) -> None:
    read = content(tmp_path / "a.ckpt", width=7, act=partial(print))
    with pytest.raises(CheckpointError, match=r"Plain .* act \(functools\.partial\).*\(act="):
        without_objects(Plain, read, {})


@pytest.mark.parametrize(
    ("cls", "arguments", "missing"),
    [
        (Plain, {}, False),  # the constructor takes no such argument
        (Open, {}, True),
        (Open, {"other": 1}, False),
    ],
)
def test_only_what_the_constructor_takes_is_missing(
    cls: type[LightningModule], arguments: Mapping[str, Any], missing: bool
) -> None:
    unread = {"other": "torch.nn.modules.activation.ReLU"}
    if missing:
        with pytest.raises(CheckpointError, match=r"other \(torch"):
            check_given(cls, {}, unread, arguments)
    else:
        check_given(cls, {}, unread, arguments)


@pytest.mark.parametrize("key", [KEY, "hparams", "module_arguments"])
def test_class_paths_are_looked_for_under_the_keys_of_older_versions_too(key: str) -> None:
    named = {key: {"net": {"class_path": "nowhere.Net"}}}
    with pytest.raises(CheckpointError, match=r"nowhere\.Net"):
        check_names(Plain, named, {})
    check_names(Plain, named, {"net": nn.ReLU()})
    check_names(Plain, {key: "text"}, {})


def test_the_command_line_parses_neither_objects_nor_foreign_names(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    content(path, act=nn.ReLU())
    with pytest.raises(CheckpointError, match=r"a\.ckpt holds objects.*init_from"):
        check_parsed(path)
    content(path, loss={"class_path": "nowhere.Loss"})
    with pytest.raises(CheckpointError, match=r"names nowhere\.Loss"):
        check_parsed(path)
    content(path, width=3)
    check_parsed(path)
