"""The most important figures of a run: its first variant against its last one."""

from __future__ import annotations

from dataclasses import dataclass

from lit_compress.artifact.card import Card
from lit_compress.artifact.variant import Metric, TimingRatio, Variant
from lit_compress.report.table import counted, human_bytes, speed_text

#: Names of the engines as their makers write them.
ENGINES = {"pytorch": "PyTorch", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}


@dataclass(frozen=True)
class Fact:
    """One figure of the headline.

    Attributes:
        label: What it is.
        before: Its value for the first variant; empty if there is none to compare with.
        after: Its value for the last variant.
        note: How sure it is, and how it was measured.

    Example:
        >>> Fact("on disk", "4.10 kB", "1.20 kB").note
        ''
    """

    label: str
    before: str
    after: str
    note: str = ""


def headline(card: Card) -> list[Fact]:
    """Return the metric, size, parameters and speed of the last variant next to the first one.

    Only measured figures are returned.

    Args:
        card: The card of the run.

    Example:
        >>> from lit_compress.artifact import Card, Variant
        >>> card = Card("digits", (Variant("dense", 1000, 1000), Variant("int8", 500, 490)), {})
        >>> headline(card)
        [Fact(label='parameters', before='1,000', after='500', note='non-zero: 1,000, then 490')]
    """
    if not card.variants:
        return []
    last = card.variants[-1]
    first = card.variants[0] if len(card.variants) > 1 else None
    facts = [_metric(first, last), _bytes(first, last), _parameters(first, last)]
    ratios = last.latency.ratios if last.latency else ()
    return [fact for fact in facts if fact] + [_speed(card, last, ratio) for ratio in ratios]


def interval_text(metric: Metric) -> str:
    """Return the interval of a metric and the examples it was measured on, in words.

    Example:
        >>> interval_text(Metric("val_acc", 0.75, "val", 400, (0.7053, 0.79)))
        '95 % interval 0.7053 to 0.7900, 400 val images'
    """
    images = f"{metric.n:,} {metric.split} images"
    if metric.interval is None:
        return f"no interval, {images}"
    low, high = metric.interval
    return f"95 % interval {low:.4f} to {high:.4f}, {images}"


def engine_name(engine: str) -> str:
    """Return the name of an engine for readers.

    Example:
        >>> engine_name("onnxruntime")
        'ONNX Runtime'
    """
    return ENGINES.get(engine, engine)


def _metric(first: Variant | None, last: Variant) -> Fact | None:
    if last.metric is None:
        return None
    note = interval_text(last.metric)
    before = first.metric if first else None
    if before is not None:
        note = f"before: {interval_text(before)}; after: {note}"
    return Fact(
        last.metric.name,
        f"{before.value:.4f}" if before else "",
        f"{last.metric.value:.4f}",
        note,
    )


def _bytes(first: Variant | None, last: Variant) -> Fact | None:
    if last.bytes is None:
        return None
    before = first.bytes if first else None
    note = f"{before:,} bytes, then {last.bytes:,} bytes" if before else f"{last.bytes:,} bytes"
    return Fact("on disk", human_bytes(before) if before else "", human_bytes(last.bytes), note)


def _parameters(first: Variant | None, last: Variant) -> Fact:
    note = f"{first.nonzero:,}, then {last.nonzero:,}" if first else f"{last.nonzero:,}"
    before = f"{first.parameters:,}" if first else ""
    return Fact("parameters", before, f"{last.parameters:,}", f"non-zero: {note}")


def _speed(card: Card, last: Variant, ratio: TimingRatio) -> Fact:
    timing = last.latency
    base = next((v.latency for v in card.variants if v.name == ratio.over and v.latency), None)
    if timing is None:
        return Fact(f"speed over {ratio.over}", "", speed_text(ratio))
    low, high = ratio.interval
    note = (
        f"{timing.confidence:.0%} interval {low:.2f} to {high:.2f}, batch {timing.batch}, "
        f"{counted(timing.threads, 'thread')}"
    )
    label = f"speed over {ratio.over}"
    if base is not None:
        same = base.engine == timing.engine
        label += f" in {'the same runtime' if same else engine_name(base.engine)}"
    return Fact(label, "", speed_text(ratio), note)
