"""What a pruning callback needs of an object that selects channels."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

from torch import Tensor, nn

from lit_compress.measure.cost import Inputs
from lit_compress.pruning.importance import Importance
from lit_compress.pruning.selection.budget import Of, Selection
from lit_compress.pruning.selection.preview import PruningPreview
from lit_compress.pruning.selection.state import PruningState


@dataclass(frozen=True)
class PruningStep:
    """A step of the pruning schedule.

    Attributes:
        progress: Progress of the schedule, from 0 to 1.
        index: Number of the step, from 0.
    """

    progress: Fraction
    index: int = 0


#: The end of any schedule.
LAST_STEP = PruningStep(Fraction(1), sys.maxsize)


class ChannelSelector(Protocol):
    """Selects the channels to prune at each step of a schedule.

    :class:`~lit_compress.pruning.selection.uniform.UniformSelector` prunes all layers towards one
    target, :class:`~lit_compress.pruning.selection.by_rules.RuleSelector` each layer by its rule.
    """

    @property
    def of(self) -> Of:
        """What the pruned share is a share of."""

    @property
    def round_to(self) -> int:
        """The number of channels that a layer keeps is a multiple of this."""

    @property
    def min_channels(self) -> int:
        """Smallest number of channels that a layer keeps."""

    @property
    def removes(self) -> bool:
        """Whether any channel will be selected."""

    def analyse(
        self,
        module: nn.Module,
        inputs: Inputs,
        submodule: str = "",
        untrained: Collection[str] | None = None,
        followers: Mapping[str, str] | None = None,
    ) -> PruningState:
        """Return the state of an unpruned network; the network is not changed.

        Args:
            module: The network.
            inputs: Example inputs of its forward.
            submodule: Name of the part of the module whose forward takes them.
            untrained: Names of the weights that are never trained, and so keep their channels.
                Default: those that are not trained now.
            followers: By name, parts that follow others, see
                :func:`~lit_compress.pruning.channels.analysis.analyse`.
        """

    def select(
        self,
        module: nn.Module,
        state: PruningState,
        step: PruningStep = LAST_STEP,
        scores: Mapping[str, Tensor] | None = None,
    ) -> Selection:
        """Select the channels to prune up to a step of the schedule.

        Args:
            module: The module, as it is now.
            state: Its pruning state.
            step: The step of the schedule.
            scores: By weight name, the scores of its filters, from an importance that needs
                gradients.
        """

    def preview(
        self, module: nn.Module, state: PruningState, selection: Selection
    ) -> PruningPreview:
        """Return what each layer loses by a selection, and why other channels are kept."""

    def gradient_importances(self) -> tuple[Importance, ...]:
        """Return the importances that need gradients."""
