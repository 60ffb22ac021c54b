"""A card as numbers for a logger."""

from __future__ import annotations

from lit_compress.artifact.card import Card


def card_scalars(card: Card) -> dict[str, float]:
    """Return the card's figures by slash-grouped tag, such as ``size/int8_bytes``."""
    scalars: dict[str, float] = {}
    for variant in card.variants:
        name = variant.name.replace(" ", "_")
        scalars[f"parameters/{name}"] = float(variant.parameters)
        scalars[f"nonzero/{name}"] = float(variant.nonzero)
        if variant.macs is not None:
            scalars[f"macs/{name}"] = float(variant.macs)
        if variant.bytes is not None:
            scalars[f"size/{name}_bytes"] = float(variant.bytes)
        if variant.metric is not None:
            scalars[f"final/{name}_{variant.metric.name}"] = variant.metric.value
        if variant.latency is not None:
            scalars[f"latency/{name}_seconds"] = variant.latency.seconds
            for ratio in variant.latency.ratios:
                if ratio.significant:
                    scalars[f"latency/{name}_speedup_over_{ratio.over.replace(' ', '_')}"] = (
                        ratio.ratio
                    )
        if variant.fidelity is not None:
            scalars[f"fidelity/{name}_sqnr_db"] = variant.fidelity.sqnr_db
    return scalars
