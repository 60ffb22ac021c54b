"""Functions around the steps of a run: what a callback adds to them, and takes away again.

The functions are kept at the strategy, which calls the steps of the user's module. The module
itself does not change, so copies of it are plain copies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

from lightning.pytorch import Callback, Trainer

Step = Callable[..., Any]
StepName = Literal["training_step", "validation_step", "test_step"]
#: Attribute of a strategy: by name of a step, what is around it, from the outside in.
AROUND = "_lit_compress_around"


def run_around(
    trainer: Trainer,
    owner: Callback,
    around: Callable[..., Any],
    steps: Sequence[StepName] = ("training_step",),
    outermost: bool = False,
) -> None:
    """Let the strategy call a function in the place of its steps.

    Args:
        trainer: The run.
        owner: The callback, by which :func:`run_plainly` finds the function again.
        around: Takes the step, and its arguments; returns what the step should return.
        steps: Names of the steps.
        outermost: Whether it is outside of the functions of other callbacks.
    """
    own = vars(trainer.strategy)
    for name in steps:
        chains = own.setdefault(AROUND, {})
        chain: list[tuple[Callback, Step]] = chains.setdefault(name, [])
        if not chain:
            own[name] = partial(_run, chain, getattr(trainer.strategy, name))
        chain.insert(0 if outermost else len(chain), (owner, around))


def run_plainly(trainer: Trainer, owner: Callback) -> None:
    """Take away the functions of a callback.

    Args:
        trainer: The run.
        owner: The callback.
    """
    own = vars(trainer.strategy)
    for name, chain in own.get(AROUND, {}).items():
        chain[:] = [entry for entry in chain if entry[0] is not owner]
        if not chain:
            own.pop(name, None)


def _run(chain: list[tuple[Callback, Step]], step: Step, *args: Any, **kwargs: Any) -> Any:
    """Call a step inside the functions around it."""
    for _, around in reversed(chain):
        step = partial(around, step)
    return step(*args, **kwargs)
