"""Name the checkpoint when Lightning cannot go on from it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from traceback import walk_tb

from lit_compress.errors import CheckpointError, LitCompressError
from lit_compress.files.reading import short

#: Lightning's module that gives the parts of a checkpoint to their owners.
CONNECTOR = "checkpoint_connector"


@contextmanager
def resuming(path: object = None) -> Iterator[None]:
    """Turn an error of a run that goes on from a checkpoint into one that names the checkpoint.

    Lightning gives the states in a checkpoint to the optimizers, the loops and the callbacks, and a
    damaged one fails there in many ways. Errors that come later in the run pass unchanged.

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
        frames = [frame for frame, _ in walk_tb(error.__traceback__)]
        names = [str(frame.f_globals.get("__name__")) for frame in frames]
        if not any(name.endswith(CONNECTOR) and name.startswith("lightning") for name in names):
            raise
        raise CheckpointError(
            f"the run cannot go on from {path or 'the checkpoint'} ({short(error)}): take another "
            "checkpoint, or the code and the arguments that it was saved with"
        ) from error
