"""What fell short in a run: less than was asked for, worse than before, or not measured."""

from __future__ import annotations

from collections.abc import Iterator

from lit_compress.artifact.card import Card
from lit_compress.artifact.variant import Fidelity, Variant
from lit_compress.report.table import (
    faster_files,
    float_weights_text,
    speed_text,
    unreached_targets,
)

#: Below these, outputs are far from those of the float network.
LOW_SQNR_DB = 15.0
LOW_AGREEMENT = 0.9


def shortfalls(card: Card) -> list[str]:
    """Return a line for everything that fell short in a run.

    Args:
        card: The card of the run.

    Example:
        >>> from lit_compress.artifact import Card, Variant
        >>> shortfalls(Card("digits", (Variant("dense", 1000, 1000),), {}))
        ['dense: metric, size on disk and speed were not measured']
    """
    lines = unreached_targets(card)
    for variant in card.variants:
        lines += [line for line in (float_weights_text(variant), _missing(variant)) if line]
        lines += _far_outputs(variant)
        lines += _slower(variant)
    lines += faster_files(card)
    return lines + list(_lower_metric(card)) + ["the card has no variants"] * (not card.variants)


def _missing(variant: Variant) -> str | None:
    """Return which figures of a variant were not measured."""
    if variant.file is None and variant.metric is None and variant.latency is not None:
        return None  # only timed, as the base of another variant, which its note says
    figures = {"metric": variant.metric, "size on disk": variant.bytes, "speed": variant.latency}
    names = [name for name, value in figures.items() if value is None]
    if not names:
        return None
    listed = " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)
    return f"{variant.name}: {listed} {'was' if len(names) == 1 else 'were'} not measured"


def are_far(fidelity: Fidelity) -> bool:
    """Tell whether the outputs of a converted file are far from those of the float network.

    Example:
        >>> are_far(Fidelity(sqnr_db=40.0, agreement=0.8, n=10))
        True
    """
    typical = fidelity.sqnr_db if fidelity.median_db is None else fidelity.median_db
    same = 1.0 if fidelity.agreement is None else fidelity.agreement
    return min(fidelity.sqnr_db, typical) < LOW_SQNR_DB or same < LOW_AGREEMENT


def _far_outputs(variant: Variant) -> Iterator[str]:
    fidelity = variant.fidelity
    if fidelity is not None and are_far(fidelity):
        typical = "" if fidelity.median_db is None else f" ({fidelity.median_db:.1f} dB typically)"
        yield (
            f"{variant.name}: outputs far from those of {fidelity.reference}, at "
            f"{fidelity.sqnr_db:.1f} dB SQNR{typical}, {fidelity.agreement_text}"
        )


def _slower(variant: Variant) -> Iterator[str]:
    for ratio in variant.latency.ratios if variant.latency else ():
        # What is slower than its own float file has a line of its own.
        if ratio.significant and ratio.ratio < 1 and not ratio.over.endswith(" onnx"):
            yield f"{variant.name}: slower than {ratio.over} ({speed_text(ratio)})"


def _lower_metric(card: Card) -> Iterator[str]:
    """Yield a line if the metric of the last variant is worse than that of the first one."""
    from lit_compress.measure.metric_names import higher_is_better

    first, last = (card.variants[place].metric if card.variants else None for place in (0, -1))
    if first is None or last is None or first.name != last.name:
        return
    sign = {True: 1, False: -1, None: 0}[higher_is_better(last.name)]
    if sign * (last.value - first.value) < 0:
        yield (
            f"{card.variants[-1].name}: {last.name} is worse than that of "
            f"{card.variants[0].name} ({last.value:.4f}, before {first.value:.4f})"
        )
