"""Turn a card into numbers for a logger."""

from __future__ import annotations

from lit_compress.artifact.card import Card
from lit_compress.artifact.variant import Timing, Variant


def card_scalars(card: Card) -> dict[str, float]:
    """Return the numbers of a card by tag, such as ``compress/int8/bytes``.

    Speed-ups are included only where they are significant.

    Args:
        card: The card.

    Example:
        >>> from lit_compress.artifact import Card, Variant
        >>> card_scalars(Card("digits", (Variant("int8", 1000, 990),), {}))
        {'compress/int8/parameters': 1000.0, 'compress/int8/nonzero': 990.0}
    """
    scalars: dict[str, float] = {}
    for variant in card.variants:
        prefix = f"compress/{variant.name.replace(' ', '_')}/"
        scalars |= {prefix + tag: float(value) for tag, value in _variant_scalars(variant).items()}
    return scalars


def _variant_scalars(variant: Variant) -> dict[str, float]:
    scalars: dict[str, float] = {"parameters": variant.parameters, "nonzero": variant.nonzero}
    if variant.macs is not None:
        scalars["macs"] = variant.macs
    if variant.bytes is not None:
        scalars["bytes"] = variant.bytes
    if variant.metric is not None:
        scalars[variant.metric.name] = variant.metric.value
    if variant.latency is not None:
        scalars |= _latency_scalars(variant.latency)
    if variant.fidelity is not None:
        scalars["sqnr_db"] = variant.fidelity.sqnr_db
    return scalars


def _latency_scalars(latency: Timing) -> dict[str, float]:
    scalars = {"seconds": latency.seconds}
    for ratio in latency.ratios:
        if ratio.significant:
            scalars[f"speedup_over_{ratio.over.replace(' ', '_')}"] = ratio.ratio
    return scalars
