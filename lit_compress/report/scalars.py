"""Turn a card into numbers for a logger."""

from __future__ import annotations

from lit_compress.artifact.card import Card
from lit_compress.artifact.variant import Timing, Variant


def card_scalars(card: Card) -> dict[str, float]:
    """Return the numbers of a card by tag, grouped with slashes, such as ``size/int8_bytes``.

    Speed-ups are included only where they are significant.

    Args:
        card: The card.

    Example:
        >>> from lit_compress.artifact import Card, Variant
        >>> card_scalars(Card("digits", (Variant("int8", 1000, 990, bytes=1200),), {}))
        {'parameters/int8': 1000.0, 'nonzero/int8': 990.0, 'size/int8_bytes': 1200.0}
    """
    scalars: dict[str, float] = {}
    for variant in card.variants:
        scalars.update(_variant_scalars(variant.name.replace(" ", "_"), variant))
    return scalars


def _variant_scalars(name: str, variant: Variant) -> dict[str, float]:
    scalars = {
        f"parameters/{name}": float(variant.parameters),
        f"nonzero/{name}": float(variant.nonzero),
    }
    if variant.macs is not None:
        scalars[f"macs/{name}"] = float(variant.macs)
    if variant.bytes is not None:
        scalars[f"size/{name}_bytes"] = float(variant.bytes)
    if variant.metric is not None:
        scalars[f"final/{name}_{variant.metric.name}"] = variant.metric.value
    if variant.latency is not None:
        scalars.update(_latency_scalars(name, variant.latency))
    if variant.fidelity is not None:
        scalars[f"fidelity/{name}_sqnr_db"] = variant.fidelity.sqnr_db
    return scalars


def _latency_scalars(name: str, latency: Timing) -> dict[str, float]:
    scalars = {f"latency/{name}_seconds": latency.seconds}
    for ratio in latency.ratios:
        if ratio.significant:
            scalars[f"latency/{name}_speedup_over_{ratio.over.replace(' ', '_')}"] = ratio.ratio
    return scalars
