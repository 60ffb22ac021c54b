"""What 4 bits per weight cost: the stored inputs, run through the network before and after."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lit_compress.artifact.fidelity import agreement, sketch, sqnr_db
from lit_compress.artifact.folder.names import MODEL
from lit_compress.artifact.replay import read_replay
from lit_compress.artifact.runtime import OnnxModel
from lit_compress.artifact.variant import Fidelity, Variant
from lit_compress.errors import AccuracyError, ArtifactError
from lit_compress.packed.four_bits import Rounded


@dataclass(frozen=True)
class Cost:
    """What the stored inputs say of a rounded network.

    Attributes:
        sqnr_db: SQNR of its outputs against the stored outputs of the float network in dB; of
            several outputs, the lowest.
        before_db: That of the network before rounding.
        same_class: Share of the inputs that it gives the same class as the float network, if it has
            one output of two dimensions; else None.
        count: Number of stored inputs.
        sketch: What tells its outputs for them from others.
    """

    sqnr_db: float
    before_db: float
    same_class: float | None
    count: int
    sketch: tuple[str, ...] = ()


def measure_cost(before: bytes, after: bytes, replay: Path) -> Cost:
    """Run the stored inputs of an artefact through two ONNX files.

    Args:
        before: The int8 network.
        after: The same network with rounded weights.
        replay: The stored inputs and outputs.

    Raises:
        ArtifactError: If the stored inputs are damaged, or are those of another network.
    """
    inputs, expected = read_replay(replay)
    outputs = [OnnxModel(MODEL, content=one).all_outputs(*inputs) for one in (before, after)]
    if len(outputs[0]) != len(expected):
        raise ArtifactError(f"{replay} has other outputs than the network: write it again")
    levels = [min(map(sqnr_db, expected, found)) for found in outputs]
    classes = len(expected) == 1 and expected[0].ndim == 2
    same = agreement(expected[0], outputs[1][0]) if classes else None
    count = len(np.atleast_1d(expected[0]))
    return Cost(levels[1], levels[0], same, count, sketch(outputs[1]))


def check_cost(cost: Cost, limit: float | None) -> None:
    """Refuse a network whose outputs are too far from those of the float network.

    Args:
        cost: What the stored inputs say.
        limit: Smallest SQNR in dB; None for no limit.

    Raises:
        AccuracyError: If the SQNR is smaller.

    Example:
        >>> check_cost(Cost(sqnr_db=20.0, before_db=38.0, same_class=None, count=32), limit=15)
    """
    if limit is not None and cost.sqnr_db < limit:
        raise AccuracyError(
            f"with 4 bits per weight the outputs are at {cost.sqnr_db:.1f} dB SQNR to the float "
            f"network, below min_sqnr_db={limit:g} ({cost.before_db:.1f} dB with 8 bits): allow "
            "less, or pack with bits=8"
        )


def rounded_variant(variant: Variant, rounded: Rounded, cost: Cost) -> Variant:
    """Return the card's entry of a network after its weights were rounded.

    What was measured of the network before (metric, latency, error of each layer) is not kept.

    Args:
        variant: The entry before.
        rounded: The rounded network.
        cost: What the stored inputs say of it.
    """
    old = variant.fidelity
    share = cost.same_class if old is not None and old.agreement_on == "class" else None
    fidelity = Fidelity(
        cost.sqnr_db,
        share,
        cost.count,
        replay_db=cost.sqnr_db,
        replay_sketch=cost.sketch,
        agreement_on=None if share is None else "class",
        fake_quantized=old is not None and old.fake_quantized,
    )
    note = (
        f"{rounded.weights} weights have 4 bits: {cost.sqnr_db:.1f} dB SQNR for {cost.count} "
        f"stored inputs, {cost.before_db:.1f} dB with 8 bits; the metric was not measured"
    )
    nonzero = variant.nonzero - rounded.zeroed
    return replace(
        variant, nonzero=nonzero, metric=None, latency=None, fidelity=fidelity, note=note
    )
