"""What the constructor of a saved module takes from the file, and what only the user can give."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.model_helpers import is_overridden

from lit_compress.checkpoints.hyperparameters import check_class_paths
from lit_compress.checkpoints.reading import read_checkpoint
from lit_compress.checkpoints.stand_ins import class_of, holds_objects, is_read
from lit_compress.errors import CheckpointError

Class = type[LightningModule]

#: Keys of hyperparameters in files of older versions of Lightning.
PAST_KEYS = ("hparams", "module_arguments")
#: What Lightning keeps for a run that goes on, which a module alone does not read.
OF_THE_RUN = (
    "optimizer_states",
    "lr_schedulers",
    "loops",
    "callbacks",
    "hparams_type",
    "datamodule_hyper_parameters",
    "datamodule_hparams_type",
    "MixedPrecision",
)


def check_names(cls: Class, content: Mapping[str, Any], arguments: Mapping[str, Any]) -> None:
    """Check that the hyperparameters of a file do not choose what is imported.

    Args:
        cls: The class.
        content: Content of a checkpoint.
        arguments: The arguments that the user gives instead of hyperparameters.

    Raises:
        CheckpointError: If they do.
    """
    for key in (*PAST_KEYS, cls.CHECKPOINT_HYPER_PARAMS_KEY):
        values = content.get(key)
        if isinstance(values, Mapping):
            parsed = "_instantiator" in values
            replaced = {"_instantiator", *arguments}
            check_class_paths({n: v for n, v in values.items() if n not in replaced}, parsed)


def check_parsed(path: str | Path) -> None:
    """Check a checkpoint whose hyperparameters the command line is about to parse.

    Args:
        path: Path of the checkpoint.

    Raises:
        CheckpointError: If it holds objects, or its hyperparameters choose what is imported.
    """
    if holds_objects(path):
        raise CheckpointError(
            f"{path} holds objects, which the command line does not make from a file: give only "
            "its weights (--model.init_from, if the model has it), or load it in Python by "
            "lit_compress.load_from_checkpoint"
        )
    values = read_checkpoint(path).get(LightningModule.CHECKPOINT_HYPER_PARAMS_KEY)
    if isinstance(values, Mapping):
        check_class_paths({n: v for n, v in values.items() if n != "_instantiator"}, True)


def without_objects(
    cls: Class, content: Mapping[str, Any], arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the content of a checkpoint without the objects in it.

    Args:
        cls: The class of the module.
        content: The content, with stand-ins.
        arguments: The arguments that the user gives instead of hyperparameters.

    Raises:
        CheckpointError: If the module needs an object that is not given.
    """
    key = cls.CHECKPOINT_HYPER_PARAMS_KEY
    values = content.get(key, {})
    if isinstance(values, dict):
        unread = {name: class_of(value) for name, value in values.items() if not is_read(value)}
    else:
        argument = content.get(cls.CHECKPOINT_HYPER_PARAMS_NAME)
        unread, values = {argument or "hyperparameters": class_of(values)}, {}
    check_given(cls, content, unread, arguments)
    kept = {name: value for name, value in content.items() if name != key and is_read(value)}
    kept |= {"state_dict": content["state_dict"], key: _without(values, unread)}
    for name, part in content["state_dict"].items():
        if not is_read(part):
            raise CheckpointError(
                f"{name} of the state_dict is an object ({class_of(part)}), which is not made from "
                "a file: load it with weights_only=False if you trust the file"
            )
    if is_overridden("on_load_checkpoint", cls, LightningModule):
        for name in sorted(content.keys() - kept.keys() - set(OF_THE_RUN)):
            raise CheckpointError(
                f"the checkpoint's {name!r}, which on_load_checkpoint of {cls.__name__} may read, "
                "holds objects, and they are not made from a file: load it with weights_only=False "
                "if you trust the file"
            )
    return kept


def check_given(
    cls: Class,
    content: Mapping[str, Any],
    unread: Mapping[str, str],
    arguments: Mapping[str, Any],
) -> None:
    """Check that the user gives each argument that a file does not have.

    Args:
        cls: The class of the module.
        content: Content of a checkpoint.
        unread: Classes of the hyperparameters that are objects, by their names.
        arguments: The arguments that the user gives.

    Raises:
        CheckpointError: If one is missing.
    """
    if content.get(cls.CHECKPOINT_HYPER_PARAMS_NAME) in arguments:
        return  # it is all of the hyperparameters
    takes = inspect.signature(cls.__init__).parameters
    any_name = any(taken.kind is taken.VAR_KEYWORD for taken in takes.values())
    missing = [name for name in unread if name not in arguments and (any_name or name in takes)]
    if missing:
        kinds = ", ".join(f"{name} ({unread[name]})" for name in missing)
        given = ", ".join(f"{name}=..." for name in missing)
        raise CheckpointError(
            f"the hyperparameters of {cls.__name__} in the file hold objects, which are not made "
            f"from a file: {kinds}. Give them as arguments ({given}), or load the checkpoint with "
            "weights_only=False if you trust the file"
        )


def _without(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}
