"""How much of a metric pruning may cost: steps wait for it, and the last network keeps it."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from lit_compress.errors import InvalidArgumentError
from lit_compress.evaluation.loaders import validation_loaders
from lit_compress.evaluation.metric import check_monitor, metric_rises
from lit_compress.evaluation.ranks.validation import validate_shared
from lit_compress.evaluation.run_view.copies import clone
from lit_compress.evaluation.trainer_access import callbacks

Mode = Literal["auto", "max", "min"]


class HasBaseline(ABC):
    """A callback that may know the dense network that a run is compared with."""

    @abstractmethod
    def dense_network(self, trainer: Trainer, pl_module: LightningModule) -> LightningModule | None:
        """Return a copy of the module with the dense weights, None if they are not known."""


class StepsBack(Callback):
    """A callback whose state belongs to the weights, and goes back together with them."""

    def kept_state(self) -> dict[str, Any]:
        """Return the state to go back to."""
        return self.state_dict()

    def go_back(self, trainer: Trainer, pl_module: LightningModule, state: dict[str, Any]) -> None:
        """Take on a state of :meth:`kept_state`; the module has the weights of then."""
        self.load_state_dict(state)


class FixesShapes(ABC):
    """A callback after whose begin nothing can be pruned."""

    @abstractmethod
    def fixed_from(self, trainer: Trainer) -> int | None:
        """Return the epoch at which it begins; None if it does not."""


@dataclass(frozen=True)
class Kept:
    """The last network that held, as plain values and tensors for a checkpoint.

    Attributes:
        epoch: Epoch after which it held.
        value: Its metric.
        weights: State dict of the module.
        pruner: State of the pruning callback.
        others: By position among the callbacks, the states of those that go back with it.
    """

    epoch: int
    value: float
    weights: dict[str, Any]
    pruner: dict[str, Any]
    others: dict[str, Any]


class Contract:
    """What a pruned network may lose of a metric, against the dense network.

    Args:
        monitor: Key of the metric; needed with ``max_drop``.
        max_drop: How much of it may go, at least 0; None lets anything go.
        mode: Whether more of it is better (``max``) or less (``min``); ``auto`` finds out.

    Attributes:
        baseline: The metric of the dense network; None until it is measured.
        last: The metric of the network since its last pruning step; None until it is measured.
        kept: The last network that held.
        is_restored: Whether that network comes from a checkpoint.
        rises: Whether more of the metric is better.

    Raises:
        InvalidArgumentError: If an argument is out of its range, or there is no monitor.

    Example:
        >>> contract = Contract("val_acc", 0.01)
        >>> contract.baseline = 0.90
        >>> contract.holds(0.895), contract.holds(0.885)
        (True, False)
    """

    def __init__(self, monitor: str | None, max_drop: float | None, mode: Mode = "auto") -> None:
        if max_drop is not None and not 0 <= max_drop < float("inf"):
            raise InvalidArgumentError(f"max_drop must be at least 0, got {max_drop}")
        if max_drop is not None and monitor is None:
            raise InvalidArgumentError(
                "max_drop needs a metric: set monitor to a key that validation_step logs"
            )
        if mode not in ("auto", "max", "min"):
            raise InvalidArgumentError(f"mode must be one of auto, max, min, got {mode!r}")
        self.monitor, self.max_drop, self.mode = monitor or "", max_drop, mode
        self.clear()

    def clear(self) -> None:
        """Forget the last fit."""
        self.baseline: float | None = None
        self.last: float | None = None
        self.kept: Kept | None = None
        self.is_restored = False
        self.rises = self.mode != "min"

    def __bool__(self) -> bool:
        return self.max_drop is not None

    def __str__(self) -> str:
        return f"max_drop {self.max_drop:g} of {self.monitor} {self.baseline or 0:.4f}"

    def lost(self, value: float) -> float:
        """Return how much worse a metric is than that of the dense network; below 0 if better."""
        baseline = value if self.baseline is None else self.baseline
        return (baseline - value) * (1 if self.rises else -1)

    def holds(self, value: float | None) -> bool:
        """Tell whether a network with this metric keeps the contract."""
        return value is not None and self.max_drop is not None and self.lost(value) <= self.max_drop

    def find_mode(self, trainer: Trainer, module: LightningModule) -> bool:
        """Return whether more of the metric is better.

        Args:
            trainer: The run.
            module: The user's module.

        Raises:
            InvalidArgumentError: If neither its name nor its object says it.
        """
        if self.mode != "auto":
            return self.mode == "max"
        with isolate_rng():
            loaders, copied = validation_loaders(trainer), clone(trainer, module)
            return metric_rises(trainer, copied, loaders, self.monitor)

    def measure_baseline(self, trainer: Trainer, module: LightningModule) -> tuple[float, bool]:
        """Measure the dense network: the one of a report's baseline, or this one.

        Args:
            trainer: The run.
            module: The user's module, before the first pruning step.

        Returns:
            The metric, and whether the dense network was trained on its own.
        """
        with isolate_rng():
            known = [one for one in callbacks(trainer) if isinstance(one, HasBaseline)]
            found = next((d for one in known if (d := one.dense_network(trainer, module))), None)
            network = clone(trainer, module) if found is None else found
            metrics = validate_shared(trainer, network, validation_loaders(trainer)).metrics
        check_monitor(self.monitor, metrics)
        if not isfinite(metrics[self.monitor]):
            raise InvalidArgumentError(
                f"max_drop: {self.monitor} of the dense network is {metrics[self.monitor]}, so "
                "nothing can be lost of it: begin with a trained network, or watch another key"
            )
        return metrics[self.monitor], found is not None

    def keep(
        self, trainer: Trainer, module: LightningModule, pruner: StepsBack, value: float
    ) -> None:
        """Keep the network as it is.

        Args:
            trainer: The run.
            module: The user's module.
            pruner: The pruning callback.
            value: The metric.
        """
        self.is_restored = False
        self.kept = Kept(
            trainer.current_epoch,
            value,
            {name: _copied(value) for name, value in module.state_dict().items()},
            copy.deepcopy(pruner.kept_state()),
            {str(at): copy.deepcopy(one.kept_state()) for at, one in _others(trainer, pruner)},
        )

    def restore_others(self, trainer: Trainer, module: LightningModule, pruner: StepsBack) -> None:
        """Give the other callbacks that go back with the network their states of then.

        Args:
            trainer: The run.
            module: The user's module.
            pruner: The pruning callback.
        """
        for at, one in _others(trainer, pruner):
            if self.kept is not None and str(at) in self.kept.others:
                one.go_back(trainer, module, self.kept.others[str(at)])

    def progress(self) -> dict[str, Any]:
        """Return what is kept, for the card; nothing before there is a baseline."""
        if self.baseline is None:
            return {}
        return {"monitor": self.monitor, "max_drop": self.max_drop, "baseline": self.baseline}

    def state(self) -> dict[str, Any]:
        """Return plain values and tensors, for a checkpoint."""
        kept = None if self.kept is None else dict(vars(self.kept))
        found = {"baseline": self.baseline, "rises": self.rises, "last": self.last, "kept": kept}
        return {"contract": found} if self else {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take on what :meth:`state` returned.

        Raises:
            ValueError: If a part of it is damaged.
        """
        found = state.get("contract")
        if found is not None:
            self.baseline, self.last = _number(found["baseline"]), _number(found["last"])
            self.rises = bool(found["rises"])
            self.kept = None if found["kept"] is None else _kept(**found["kept"])
            self.is_restored = self.kept is not None


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _kept(epoch: Any, value: Any, weights: Any, pruner: Any, others: Any) -> Kept:
    """Return a network that was kept, if its parts have the right kinds."""
    if not all(isinstance(part, dict) for part in (weights, pruner, others)):
        raise ValueError("the network that is kept has no weights or states")
    return Kept(int(epoch), float(value), weights, pruner, others)


def _others(trainer: Trainer, but: StepsBack) -> list[tuple[int, StepsBack]]:
    found = enumerate(callbacks(trainer))
    return [(at, one) for at, one in found if isinstance(one, StepsBack) and one is not but]


def _copied(value: Any) -> Any:
    return value.detach().cpu().clone() if isinstance(value, Tensor) else copy.deepcopy(value)
