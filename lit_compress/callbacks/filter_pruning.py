"""Filter-wise pruning: channels leave the network for good, while training goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, Literal, get_args

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle
from typing_extensions import override

from lit_compress.callbacks.ddp import on_rank_zero, rewrap
from lit_compress.callbacks.evaluation import clone, validate, validation_loaders
from lit_compress.callbacks.example import Example, find_example
from lit_compress.callbacks.hold import Hold
from lit_compress.callbacks.pruning import PruningCallback, plain
from lit_compress.callbacks.recalibrate import recalibrate
from lit_compress.errors import CheckpointError, InvalidArgumentError
from lit_compress.measure.cost import Inputs, cost
from lit_compress.pruning import ChannelGraph, Schedule, analyse, apply, make_plan, restrict
from lit_compress.pruning.channels import verify
from lit_compress.pruning.describe import Outlook, outlook
from lit_compress.pruning.eligible import Eligible, eligible_groups
from lit_compress.pruning.importance import (
    Importance,
    ImportanceName,
    class_scores,
    importance_of,
    layer_scores,
    refuse_nan,
)
from lit_compress.pruning.masks import Scope
from lit_compress.pruning.plan import Cut, Plan
from lit_compress.pruning.rules import read_rules
from lit_compress.pruning.selection import Budget, Limits, Of, Selection, saved, select
from lit_compress.pruning.shapes import Original, Shapes, fit_shapes, original_of
from lit_compress.pruning.surgery import cut_tensor, set_widths
from lit_compress.pruning.trace import named_tensors

DEFAULT_SCHEDULE = Schedule()
Gone = frozenset[int]


class FilterPruning(PruningCallback):
    """Removes filters, and all that is tied to them, from the network while it trains.

    Works on any LightningModule: which channels go together is found by running its forward once.
    Layers really get smaller, so each epoch costs less than the one before; optimizers, schedulers
    and checkpoints go on. What will go and what cannot, and why, is printed before the training.

    Args:
        target: Share removed in the end, in [0, 1), of what ``of`` names. Reached by the last event
            of the schedule, never compounding.
        of: ``filters`` that can go, or all ``parameters`` or ``macs`` (multiply-accumulates of one
            forward) of the network.
        schedule: Epochs at which to prune. Default: each of the first two thirds of the run, cubic.
        scope: ``local`` takes the same share of each layer, ``global`` ranks all filters together.
        importance: How filters are ranked: ``l1`` or ``l2`` norm, ``bn_scale`` (of the norm behind
            them), ``taylor`` (effect on the loss, over the epoch before), ``fpgm`` (distance from
            the layer's other filters), ``random``, or a subclass of
            ``lit_compress.pruning.Importance``.
        include: Globs of the layers to prune, such as ``model.features.*``. Default: all.
        exclude: Globs of the layers to leave alone.
        rules: Path of a YAML rule file: a list of ``{pattern: glob, ratio: share}`` or
            ``{pattern: glob, skip: true}``; layers that no rule names lose the common share.
        round_to: Widths are multiples of this; 8 is what runtimes like.
        min_channels: Channels that each layer keeps at least.
        shrink: ``every`` removes at each event; ``end`` holds them at zero and removes at the end
            of the fit: the same network, later.
        recalibrate: Batches on which the statistics of batch norms are estimated anew after each
            event.
        submodule: Name of the module whose forward is followed, where it is not the
            LightningModule's own.
        monitor: Key that your ``validation_step`` logs, such as ``val_acc``; it is logged again as
            ``pruned/val_acc`` once the target is reached, NaN before: what ModelCheckpoint should
            watch to keep the best pruned weights.
    """

    def __init__(
        self,
        target: float,
        of: Of = "filters",
        schedule: Schedule = DEFAULT_SCHEDULE,
        scope: Scope = "local",
        importance: ImportanceName | Importance = "l2",
        include: Sequence[str] = ("*",),
        exclude: Sequence[str] = (),
        rules: str | None = None,
        round_to: int = 1,
        min_channels: int = 1,
        shrink: Literal["every", "end"] = "every",
        recalibrate: int = 0,
        submodule: str | None = None,
        monitor: str | None = None,
    ) -> None:
        super().__init__(target, schedule, monitor)
        _one_of("of", of, get_args(Of))
        _one_of("scope", scope, get_args(Scope))
        _one_of("shrink", shrink, ("every", "end"))
        for name, value, low in (
            ("round_to", round_to, 1),
            ("min_channels", min_channels, 1),
            ("recalibrate", recalibrate, 0),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise InvalidArgumentError(
                    f"{name} must be a whole number of at least {low}, got {value!r}"
                )
        for name, patterns in (("include", include), ("exclude", exclude)):
            if isinstance(patterns, str):
                raise InvalidArgumentError(
                    f"{name} must be a list of patterns, got the text {patterns!r}: write "
                    f"[{patterns!r}]"
                )
        self.of = of
        self.scope = scope
        self.importance = importance_of(importance)
        self.include = list(include)
        self.exclude = list(exclude)
        self.rules = rules
        self.round_to = round_to
        self.min_channels = min_channels
        self.shrink = shrink
        self.recalibrate = recalibrate
        self.submodule = submodule
        self._named_importance = importance
        self._rules = read_rules(rules) if rules is not None else ()
        self._hold = Hold()
        self._handle: RemovableHandle | None = None
        self._fitted: Shapes = {}
        self._example: Example | None = None
        self._forget()

    def _forget(self) -> None:
        self._graph: ChannelGraph | None = None
        self._gone: Gone = frozenset()  # decided
        self._removed: Gone = frozenset()  # and cut out of the module
        self._budget = Budget(0, 0)
        self._taylor: dict[str, Tensor] = {}
        self._cached: tuple[Gone, ChannelGraph] | None = None

    @override
    def arguments(self) -> dict[str, Any]:
        named = self._named_importance
        return {
            "target": float(self._target),
            "of": self.of,
            "schedule": plain(self.schedule),
            "scope": self.scope,
            "importance": named if isinstance(named, str) else type(named).__name__,
            "include": self.include,
            "exclude": self.exclude,
            "rules": [
                [r.pattern, None if r.ratio is None else float(r.ratio)] for r in self._rules
            ],
            "round_to": self.round_to,
            "min_channels": self.min_channels,
            "shrink": self.shrink,
            "recalibrate": self.recalibrate,
            "submodule": self.submodule,
        }

    def describe(self, module: nn.Module, example_inputs: Inputs) -> Outlook:
        """Return what would go from a module, and what cannot and why; nothing is changed.

        With ``scope: global``, how much each layer loses depends on the weights it has by then;
        for ``taylor`` they are ranked by their norm here.

        Args:
            module: A LightningModule or any other.
            example_inputs: What its forward takes: a tensor, a tuple, or a mapping of keywords.
        """
        path = self.submodule or ""
        refuse_nan(dict(module.named_parameters()))
        graph = analyse(module, example_inputs, path)
        eligible = self._eligible(module, graph)
        budget = _budget(module, example_inputs, path, graph, eligible.groups)
        gone = self._selected(module, graph, budget, eligible, self._target).gone
        return outlook(module, graph, gone, budget, eligible.kept_back)

    # --- fit -----------------------------------------------------------------------------------

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._fitted = {}
        if self._handle is None:
            self._handle = pl_module.register_load_state_dict_pre_hook(self._fit_shapes)  # type: ignore[no-untyped-call]
        if stage != "fit":
            return
        self._forget()
        self._hold.clear()
        for other in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(other, PruningCallback) and other is not self:
                raise InvalidArgumentError(
                    f"FilterPruning cannot run beside {type(other).__name__}: both would decide "
                    "over the same weights; prune in two fits, the second with init_from"
                )
        if self.importance.needs_gradient and self._settled.first == 0:
            raise InvalidArgumentError(
                f"importance {type(self.importance).__name__} needs the gradients of the epoch "
                "before an event: set schedule.first to 1 at least"
            )

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._hold.release()
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        with isolate_rng():
            self._example = on_rank_zero(
                trainer, lambda: find_example(trainer, pl_module, self.submodule)
            )
            if self._graph is None:
                self._start(trainer, pl_module)
        if self.shrink == "end":
            self._hold.attach(trainer.optimizers)
            self._hold_masks(pl_module)

    def _start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        content, budget, text = on_rank_zero(trainer, lambda: self._planned(trainer, pl_module))
        self._graph, self._budget = ChannelGraph.from_dict(content), budget
        rank_zero_info(f"FilterPruning: what will go\n{text}")

    def _planned(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> tuple[dict[str, Any], Budget, str]:
        """Return the channels, what the network costs, and what will go; try it on a copy."""
        example = self._seen()
        refuse_nan(dict(pl_module.named_parameters()))
        graph = analyse(pl_module, example.inputs, example.submodule)
        eligible = self._eligible(pl_module, graph)
        budget = _budget(pl_module, example.inputs, example.submodule, graph, eligible.groups)
        selection = self._selected(pl_module, graph, budget, eligible, self._target)
        if selection.clamped and self.of != "filters":
            most = self._share(pl_module, graph, budget, selection.gone)
            raise InvalidArgumentError(
                f"target {float(self._target):g} of {self.of} cannot be reached: {most:.3f} can go "
                "at most; lower target, or let more layers go (include, exclude, min_channels, "
                "round_to)"
            )
        self._say_clamped(selection.clamped)
        _rehearse(trainer, pl_module, make_plan(graph, selection.gone))
        return (
            graph.to_dict(),
            budget,
            str(outlook(pl_module, graph, selection.gone, budget, eligible.kept_back)),
        )

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_epoch_start(trainer, pl_module)
        self._taylor = {}
        if self._graph is not None:
            names = _parameter_names(pl_module)
            for word in ("parameters", "macs"):
                total = getattr(self._budget, word)
                left = total - saved(self._graph, self._gone, word, names)
                pl_module.log(f"size/{word}", float(left), on_step=False, on_epoch=True)

    @override
    def prune(self, trainer: Trainer, pl_module: LightningModule, share: Fraction) -> float:
        gone = frozenset(on_rank_zero(trainer, lambda: self._chosen(pl_module, share)))
        if self.shrink == "every":
            self._remove(trainer, pl_module, gone)
        self._gone = gone
        self._hold_masks(pl_module)
        if self.recalibrate:
            recalibrate(trainer, pl_module, self.recalibrate)
        return self._share(pl_module, self._whole(), self._budget, gone)

    def _chosen(self, pl_module: LightningModule, share: Fraction) -> list[int]:
        graph, example = self._whole(), self._seen()
        eligible = self._eligible(pl_module, graph)
        selection = self._selected(pl_module, graph, self._budget, eligible, share)
        left = self._left(self._removed)
        plan = make_plan(left, selection.gone - self._removed)
        with isolate_rng():
            verify(pl_module, example.inputs, left, plan, example.submodule)
        return sorted(selection.gone)

    def _remove(self, trainer: Trainer, pl_module: LightningModule, gone: Gone) -> None:
        """Cut channels out of the module and its optimizers."""
        plan = make_plan(self._left(self._removed), gone - self._removed)
        apply(plan, pl_module, *trainer.optimizers)
        self._removed = gone
        rewrap(trainer)

    @override
    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        self._hold.apply_to_gradients()
        if self.importance.needs_gradient and self._due_next(trainer):
            left = self._left(self._removed)
            for name, score in layer_scores(pl_module, left, self.importance).items():
                self._taylor[name] = self._taylor.get(name, torch.zeros(())) + score

    def _due_next(self, trainer: Trainer) -> bool:
        due = self._target * self._settled.share(trainer.current_epoch + 1)
        return self._graph is not None and due > self._done

    @override
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if not pl_module.automatic_optimization:
            self._hold.apply()

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._hold.apply()
        self._hold.release()
        if self._removed != self._gone:
            self._remove(trainer, pl_module, self._gone)
        self._hold.clear()

    @override
    def original(self) -> Original | None:
        return None if self._graph is None else Original.of(self._graph, self._removed)

    @override
    def complete(self, module: LightningModule) -> None:
        if self._graph is None:
            return
        tensors = named_tensors(module)
        if all(tuple(tensors[n].shape) == shape for n, shape in self._graph.shapes.items()):
            apply(make_plan(self._graph, self._gone), module)

    # --- checkpoints ---------------------------------------------------------------------------

    @override
    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        if self._graph is None:
            return state
        return {
            **state,
            "graph": self._graph.to_dict(),
            "gone": sorted(self._gone),
            "removed": sorted(self._removed),
            "budget": [self._budget.parameters, self._budget.macs, self._budget.filters],
            "taylor": dict(self._taylor),
            "original": Original.of(self._graph, self._removed).to_dict(),
        }

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        if state_dict.get("graph") is None:
            return
        self._graph = ChannelGraph.from_dict(state_dict["graph"])
        self._gone = frozenset(state_dict["gone"])
        self._removed = frozenset(state_dict["removed"])
        self._budget = Budget(*state_dict["budget"])
        self._taylor = dict(state_dict["taylor"])

    def _fit_shapes(
        self, module: nn.Module, state: Mapping[str, Any], prefix: str, *_: Any
    ) -> None:
        """Fit the module to weights that are about to be loaded; they come before our state."""
        missing = sorted(set(module.state_dict()) - set(state))
        if missing and getattr(module, "strict_loading", True):
            raise CheckpointError(
                f"the checkpoint holds no weights of {missing[0]} ({len(missing)} such): it is of "
                f"another architecture than {type(module).__name__}"
            )
        self._fitted = fit_shapes(module, state)

    @override
    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        original = original_of(checkpoint)
        known = dict(self._graph.shapes) if self._graph is not None else {}
        for name, shape in self._fitted.items():
            whole = original.shapes.get(name) if original is not None else None
            if whole is None or (shape != whole and known.get(name) != whole):
                now = tuple(named_tensors(pl_module)[name].shape)
                raise CheckpointError(
                    f"{name} is {now} in the checkpoint and {shape} here, and "
                    + (
                        "the checkpoint was not made with FilterPruning"
                        if original is None
                        else f"was {whole or 'of fixed size'} in the network that was pruned"
                    )
                    + ": build the module with the arguments it was trained with"
                )
        if original is not None:
            set_widths(pl_module, set(), original.norms)
        self._fitted = {}

    # --- decisions -----------------------------------------------------------------------------

    def _whole(self) -> ChannelGraph:
        if self._graph is None:
            raise InvalidArgumentError("FilterPruning has not seen the network yet: start a fit")
        return self._graph

    def _seen(self) -> Example:
        if self._example is None:
            raise InvalidArgumentError("FilterPruning has no example input yet: start a fit")
        return self._example

    def _left(self, gone: Gone) -> ChannelGraph:
        """Return the channels of the network without those that are gone."""
        if self._cached is None or self._cached[0] != gone:
            graph = self._whole()
            self._cached = gone, restrict(graph, make_plan(graph, gone))
        return self._cached[1]

    def _eligible(self, module: nn.Module, graph: ChannelGraph) -> Eligible:
        return eligible_groups(
            module, graph, self.importance, self.include, self.exclude, self._rules
        )

    def _selected(
        self,
        module: nn.Module,
        graph: ChannelGraph,
        budget: Budget,
        eligible: Eligible,
        share: Fraction,
    ) -> Selection:
        done = share / self._target if self._target else Fraction(0)
        ratios = {index: ratio * done for index, ratio in eligible.ratios.items()}
        return select(
            graph,
            self._gone,
            self._scores(module, graph),
            eligible.groups,
            share,
            self.of,
            self.scope,
            Limits(self.min_channels, self.round_to, ratios),
            budget,
            _parameter_names(module),
        )

    def _scores(self, module: nn.Module, graph: ChannelGraph) -> np.ndarray:
        """Return the scores of the channels that are left, as if the others had been removed."""
        left = restrict(graph, make_plan(graph, self._gone))
        now = restrict(graph, make_plan(graph, self._removed))
        held = make_plan(now, self._gone - self._removed).by_tensor()
        importance = self.importance
        if importance.needs_gradient and self._taylor:
            scores = {
                name: score[_kept(now, held.get(name, {}), name, len(score))]
                for name, score in self._taylor.items()
            }
        else:
            if importance.needs_gradient:
                importance = importance_of("l2")
            tensors = named_tensors(module)
            cut = {name: cut_tensor(tensors[name].detach(), dims) for name, dims in held.items()}
            scores = layer_scores(module, left, importance, cut)
        return class_scores(left, scores, importance)

    def _share(self, module: nn.Module, graph: ChannelGraph, budget: Budget, gone: Gone) -> float:
        total = getattr(budget, self.of)
        return saved(graph, gone, self.of, _parameter_names(module)) / total if total else 0.0

    def _hold_masks(self, pl_module: LightningModule) -> None:
        """Hold what is to go at zero until it is removed."""
        waiting = self._gone - self._removed
        if not waiting:
            return
        graph = self._left(self._removed)
        parameters = dict(pl_module.named_parameters())
        masks: dict[str, Tensor] = {}
        for cut in make_plan(graph, waiting).cuts:
            if cut.tensor in parameters:
                mask = masks.setdefault(
                    cut.tensor, torch.ones(parameters[cut.tensor].shape, dtype=torch.bool)
                )
                dropped = np.setdiff1d(np.arange(cut.size), cut.keep)
                mask.index_fill_(cut.dim, torch.from_numpy(dropped), False)
        self._hold.hold(parameters, masks)

    def _say_clamped(self, names: Sequence[str]) -> None:
        if names:
            rank_zero_warn(
                f"FilterPruning: {len(names)} layers will keep more than their share, since "
                f"min_channels ({self.min_channels}) stay: {', '.join(names[:4])}"
                + (" ..." if len(names) > 4 else "")
            )


def _one_of(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise InvalidArgumentError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def _parameter_names(module: nn.Module) -> frozenset[str]:
    return frozenset(name for name, _ in module.named_parameters())


def _kept(graph: ChannelGraph, cuts: Mapping[int, Cut], name: str, size: int) -> list[int]:
    """Return which scores of a tensor stay: those of the dimension in which it makes channels."""
    for dim, cut in cuts.items():
        if graph.roles[name, dim] in ("filter", "scale"):
            return list(cut.keep)
    return list(range(size))


def _budget(
    module: nn.Module,
    inputs: Inputs,
    submodule: str,
    graph: ChannelGraph,
    groups: Sequence[int],
) -> Budget:
    filters = graph.filters()
    classes = [number for index in groups for number in graph.groups[index].classes]
    return Budget(
        sum(parameter.numel() for parameter in module.parameters()),
        cost(module.get_submodule(submodule), inputs).macs,
        int(filters[classes].sum()),
    )


def _rehearse(trainer: Trainer, pl_module: LightningModule, plan: Plan) -> None:
    """Run the user's validation on a pruned copy: better to fail here than after an epoch."""
    loaders = validation_loaders(trainer)
    if not loaders:
        return
    copy = clone(trainer, pl_module)
    apply(plan, copy)
    try:
        validate(trainer, copy, loaders, 1)
    except Exception as error:
        raise InvalidArgumentError(
            f"validation_step of {type(pl_module).__name__} fails once channels are removed "
            f"({type(error).__name__}: {error}): it uses a layer that its forward does not; "
            "exclude what feeds it, or name the part to prune by submodule"
        ) from error
