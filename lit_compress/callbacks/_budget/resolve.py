"""The share of a network to remove, where it is known only after a measurement."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

from lightning.pytorch import LightningModule, Trainer

from lit_compress.callbacks._budget.allocation import allocate
from lit_compress.callbacks._budget.byte_budget import share_for
from lit_compress.callbacks._budget.latency_budget import LatencyBudget, Stopwatch, share_of_time
from lit_compress.callbacks._budget.wanted import Wanted
from lit_compress.evaluation.example_inputs import ExampleInputs
from lit_compress.evaluation.run_view.copies import clone
from lit_compress.layer_times import LayerTimes, free_multiple, layers_of
from lit_compress.pruning.selection.state import PruningState
from lit_compress.pruning.selection.uniform import UniformSelector


@dataclass(frozen=True)
class Found:
    """What was measured for a budget.

    Attributes:
        selector: The selector with its target.
        text: What to say of it.
        latency: What was found for a budget of time.
        watch: What times files against that of the dense network.
    """

    selector: UniformSelector
    text: str = ""
    latency: LatencyBudget | None = None
    watch: Stopwatch | None = None


def resolve(
    trainer: Trainer,
    module: LightningModule,
    selector: UniformSelector,
    state: PruningState,
    example: ExampleInputs,
    wanted: Wanted,
    watch: Stopwatch | None = None,
) -> Found:
    """Measure what a budget leaves open.

    Args:
        trainer: The run.
        module: The user's module; it does not change.
        selector: The selector without a target.
        state: The pruning state of the network.
        example: Example inputs of the part that is pruned.
        wanted: What the budget asks for.
        watch: What times files against the dense network, if that has lost blocks since.

    Raises:
        InvalidArgumentError: If the budget cannot be kept.
    """
    said = ""
    if wanted.round_to == "auto":
        selector = replace(selector, round_to=_multiple(trainer, module, example, wanted))
        said = f"layers keep multiples of {selector.round_to} filters, which cost no time here\n"
    start = selector
    allocation = allocate(trainer, module, start, state) if wanted.measured else None

    def at(share: Fraction) -> UniformSelector:
        if allocation is None:
            return replace(start, target=share)
        return allocation.selector(start, share)

    if wanted.of == "bytes":
        found = share_for(trainer, module, at, state, int(wanted.target))
        said += (
            f"the int8 file will have {found.size:,} of at most {int(wanted.target):,} bytes "
            f"({found.tries} files were written to find it)\n"
        )
        return Found(at(found.share), said)
    if wanted.of == "latency":
        allowed = 1 - float(wanted.target)
        budget, watch = share_of_time(
            trainer, module, at, state, example, allowed, wanted.batch, watch
        )
        said += (
            f"the int8 file will take {budget.timed} of the dense one's time, of at most "
            f"{100 * allowed:.1f} % (batch {wanted.batch}, one thread, {budget.tries} files were "
            "written to find it)\n"
        )
        return Found(at(budget.share), said, budget, watch)
    return Found(at(selector.target), said)


def _multiple(
    trainer: Trainer, module: LightningModule, example: ExampleInputs, wanted: Wanted
) -> int:
    """Return the multiple of filters that costs no time on this machine."""
    part = clone(trainer, module).get_submodule(example.submodule).eval()
    layers = layers_of(part, example.inputs)
    share = float(wanted.share)
    # Layers lose along both sides, so each keeps the root of what the network keeps.
    kept = 1 - share if wanted.of == "filters" else (1 - share) ** 0.5
    return free_multiple(layers, max(kept, 0.01), LayerTimes(wanted.batch).seconds)
