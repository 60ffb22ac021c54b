"""Name the checkpoint when a run cannot go on from it.

Lightning gives the states in a checkpoint to the module, the optimizers, the loops and the
callbacks, and a damaged one fails there in many ways, or only in a later step.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from traceback import walk_tb
from typing import Any

from lightning.pytorch import Trainer

from lit_compress.callbacks._run.run_state import check_values, checked_states
from lit_compress.checkpoints.content import check_content
from lit_compress.checkpoints.reading import check_whole
from lit_compress.errors import CheckpointError, LitCompressError
from lit_compress.evaluation.trainer_access import checkpoint_connector
from lit_compress.files.reading import LONGEST, short

#: Lightning's module that gives the parts of a checkpoint to their owners.
CONNECTOR = "checkpoint_connector"
#: Its functions, in the order in which a run calls them.
READ, STATES, END = "resume_start", "restore_training_state", "resume_end"
PARTS = (READ, "restore_model", "restore_datamodule", "restore_callbacks", STATES)
#: Packages whose errors do not come from a hook of the user.
OURS = ("lightning", "torch", "lit_compress", "fsspec", "numpy")


def name_checkpoint(trainer: Trainer) -> None:
    """Check the checkpoint that a run goes on from, and let its errors name it.

    Call it in ``setup``. It ends when the run has all of the checkpoint.

    Args:
        trainer: The run.
    """
    connector = checkpoint_connector(trainer)
    _leave(connector)  # of a run that failed before it read the checkpoint
    for name in (*PARTS, END):
        vars(connector)[name] = partial(_restore, trainer, name, getattr(connector, name))


def _restore(
    trainer: Trainer, name: str, method: Callable[..., Any], *args: Any, **kwargs: Any
) -> None:
    """Take the place of a function of Lightning's that restores a part of a checkpoint."""
    connector = checkpoint_connector(trainer)
    path = (*args, *kwargs.values())[0] if name == READ and (args or kwargs) else trainer.ckpt_path
    if name == END or not path:
        if name == END:
            _leave(connector)
        method(*args, **kwargs)
        return
    try:
        with restoring(path):
            if name == READ and Path(path).is_file():
                check_whole(path)
            content = connector._loaded_checkpoint
            with checked_states(trainer, content) if name == STATES else nullcontext():
                method(*args, **kwargs)
            if name == READ and isinstance(connector._loaded_checkpoint, dict):
                check_values(check_content(path, connector._loaded_checkpoint))
    except BaseException:
        _leave(connector)
        raise


def _leave(connector: Any) -> None:
    for name in (*PARTS, END):
        vars(connector).pop(name, None)


@contextmanager
def named(trainer: Trainer) -> Iterator[None]:
    """Name the checkpoint of a run in errors of this package: its state does not fit the run.

    Args:
        trainer: The run. If it does not go on from a checkpoint, errors pass unchanged.

    Raises:
        LitCompressError: Of the same class, with the path in front of the message.
    """
    try:
        yield
    except LitCompressError as error:
        if not trainer.ckpt_path or str(trainer.ckpt_path) in str(error):
            raise
        raise type(error)(f"{trainer.ckpt_path}: {error}") from error


@contextmanager
def restoring(path: object) -> Iterator[None]:
    """Turn an error of the block, which restores a part of a checkpoint, into one that names it.

    Errors in hooks of the user, such as ``on_load_checkpoint``, pass; since Python 3.11 a note
    names the checkpoint.

    Args:
        path: The checkpoint.

    Raises:
        CheckpointError: If the checkpoint cannot be resumed.
    """
    try:
        yield
    except LitCompressError as error:
        if str(path) in str(error):
            raise
        raise type(error)(f"{path}: {error}") from error
    except Exception as error:
        if _is_of_user(_modules(error)):
            if sys.version_info >= (3, 11):
                error.add_note(f"raised while the run went on from {path}")
            raise
        raise _refused(path, error) from error


@contextmanager
def resuming(path: object = None) -> Iterator[None]:
    """Turn an error of a run that goes on from a checkpoint into one that names the checkpoint.

    Errors that come later in the run pass unchanged.

    Args:
        path: The checkpoint, for the message. Default: unknown.

    Raises:
        CheckpointError: If the checkpoint cannot be resumed.
    """
    try:
        yield
    except LitCompressError:
        raise
    except Exception as error:
        names = _modules(error)
        if not any(name.endswith(CONNECTOR) and name.startswith("lightning") for name in names):
            raise
        raise _refused(path or "the checkpoint", error) from error


def _refused(path: object, error: Exception) -> CheckpointError:
    text = " ".join(str(error).split())  # torch lists the weights that do not fit in further lines
    told = f"{type(error).__name__}: {text}" if len(text) <= LONGEST else short(error)
    return CheckpointError(
        f"the run cannot go on from {path} ({told}): take another checkpoint, or the code and the "
        "arguments that it was saved with"
    )


def _modules(error: Exception) -> list[str]:
    """Return the names of the modules whose functions an error went through."""
    return [str(frame.f_globals.get("__name__")) for frame, _ in walk_tb(error.__traceback__)]


def _is_of_user(modules: Sequence[str]) -> bool:
    """Tell whether a function that is neither Lightning's nor ours was called."""
    roots = {module.partition(".")[0] for module in modules}
    return not roots <= {*OURS, *sys.stdlib_module_names} - {"__main__"}
