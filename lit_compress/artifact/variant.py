"""One variant of a network on the card (dense, pruned, int8), and what was measured of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lit_compress.runtimes import FormatFile, Port


@dataclass(frozen=True)
class Metric:
    """One measured metric, such as an accuracy.

    Attributes:
        name: Name under which the module logged the metric.
        value: Value of the metric.
        split: Data split it was measured on, such as ``val`` or ``test``.
        n: Number of examples it was measured on.
        interval: 95 % Wilson score interval (Wilson 1927) as (low, high), if the value is a share
            of ``n``, as an accuracy is; else None.
        confusion: Number of examples by label (rows) and answer (columns), where batches are pairs
            of inputs and integer labels and there are at most 100 classes; else None.

    Example:
        >>> Metric("val_acc", 0.75, "val", 400, (0.7053, 0.79)).value
        0.75
    """

    name: str
    value: float
    split: str
    n: int
    interval: tuple[float, float] | None = None
    confusion: tuple[tuple[int, ...], ...] | None = None


@dataclass(frozen=True)
class TimingRatio:
    """How many times faster a variant is than another one.

    Attributes:
        over: Name of the other variant.
        ratio: Time of the other variant divided by the own time; above 1 is faster.
        interval: Interval of the ratio as (low, high).
        significant: Whether the interval excludes 1; only then is it a speed-up or a slow-down.

    Example:
        >>> TimingRatio("dense", ratio=2.5, interval=(2.25, 2.75), significant=True).over
        'dense'
    """

    over: str
    ratio: float
    interval: tuple[float, float]
    significant: bool


@dataclass(frozen=True)
class Timing:
    """Latency of one call, measured in turn with the other variants.

    Attributes:
        engine: What ran the variant: ``pytorch`` (eager mode) or ``onnxruntime``.
        batch: Number of images per call.
        threads: Number of threads.
        seconds: Median time of one call.
        interval: Interval of the median as (low, high), in seconds.
        confidence: Confidence of all intervals, in (0, 1).
        rounds: Number of interleaved rounds.
        ratios: Comparisons with the variants that were timed in turn with this one.

    Example:
        >>> timing = Timing("onnxruntime", batch=1, threads=1, seconds=0.001,
        ...                 interval=(0.0009, 0.0011), confidence=0.99, rounds=60)
        >>> timing.ratios
        ()
    """

    engine: str
    batch: int
    threads: int
    seconds: float
    interval: tuple[float, float]
    confidence: float
    rounds: int
    ratios: tuple[TimingRatio, ...] = ()


@dataclass(frozen=True)
class LayerFidelity:
    """Error of the outputs if a single layer is quantised and all others stay float.

    SQNR is the signal to quantisation noise ratio of the network's outputs in dB; higher is better.

    Attributes:
        name: Name of the layer, of an input, or of a float operation whose output is quantised
            because a layer reads it.
        weight_db: SQNR with the weight of the layer quantised; None if it has no weight.
        activation_db: SQNR with the output of the layer quantised; None if the output stays float.
        float: Whether the layer stays float in the converted file.

    Example:
        >>> LayerFidelity("features.0", weight_db=41.2, activation_db=33.0).float
        False
    """

    name: str
    weight_db: float | None
    activation_db: float | None
    float: bool = False


@dataclass(frozen=True)
class OutputFidelity:
    """How close one of several outputs of a converted file is to that of the float network.

    Attributes:
        name: Name of the output in the file.
        sqnr_db: Signal to quantisation noise ratio in dB.
        agreement: Share of equal answers, in [0, 1]; None if the output gives no answers.
        agreement_on: What an answer is, as in :class:`Fidelity`.

    Example:
        >>> OutputFidelity("aux", sqnr_db=31.2).agreement is None
        True
    """

    name: str
    sqnr_db: float
    agreement: float | None = None
    agreement_on: str | None = None


@dataclass(frozen=True)
class Fidelity:
    """How close the outputs of a converted file are to those of the float network.

    Attributes:
        sqnr_db: Signal to quantisation noise ratio of the outputs in dB, see
            :func:`lit_compress.artifact.sqnr_db`; of several outputs, the lowest.
        agreement: Share of equal answers, in [0, 1]; None if the outputs are neither classes nor
            signs, such as those of a regression.
        n: Number of inputs that were compared.
        replay_db: SQNR in dB of the inputs that are stored in the artefact; None in old cards.
        replay_n: Number of the stored inputs; None in old cards.
        replay_sketch: For each output, what tells the outputs of the stored inputs from others, see
            :func:`lit_compress.artifact.fidelity.sketch`; empty in old cards.
        layers: Error of each layer alone, in the order of the graph.
        evaluations: How many files were evaluated to satisfy ``max_drop``; 0 without ``max_drop``.
        agreement_on: What an answer is: ``class`` (the largest output), ``class at each position``,
            ``sign`` of each output, or ``side of 0.5`` for outputs between 0 and 1. None if there
            is no agreement, and in old cards, where it is the largest along the last axis.
        median_db: SQNR in dB of a typical input, see
            :func:`lit_compress.artifact.fidelity.median_sqnr_db`; None in old cards, and if most
            outputs are zero.
        outputs: Each output, if there are several; the answers are then those of the first one
            that gives answers.
        fake_quantized: Whether the outputs are compared with those of the network that rounds as
            the file does, as it was trained; otherwise with those of the float network.

    Example:
        >>> print(Fidelity(sqnr_db=30.5, agreement=0.99, n=64).agreement_text)
        the same class for 99.0% of 64 calibration inputs
    """

    sqnr_db: float
    agreement: float | None
    n: int
    replay_db: float | None = None
    layers: tuple[LayerFidelity, ...] = ()
    evaluations: int = 0
    agreement_on: str | None = None
    median_db: float | None = None
    outputs: tuple[OutputFidelity, ...] = ()
    fake_quantized: bool = False
    replay_sketch: tuple[str, ...] = ()
    replay_n: int | None = None

    @property
    def reference(self) -> str:
        """What the outputs are compared with, in words."""
        if self.fake_quantized:
            return "the network as it was trained, with fake quantisation"
        return "the float network"

    @property
    def agreement_text(self) -> str:
        """What the agreement is, in words, or why there is none."""
        if self.agreement is None:
            return "no agreement, as no label says that the outputs are classes"
        share, kind = f"{self.agreement:.1%}", self.agreement_on or "class"
        if kind == "class":
            return f"the same class for {share} of {self.n} calibration inputs"
        if kind == "class at each position":
            return f"the same class at {share} of the positions of {self.n} calibration inputs"
        return f"the same {kind} for {share} of the outputs of {self.n} calibration inputs"


@dataclass(frozen=True)
class FloatWeight:
    """A weight that is not int8 in a converted file.

    Attributes:
        name: Name of the layer that reads it.
        share: Its share of all weights of the network, in [0, 1].
        reason: Why it is float.

    Example:
        >>> FloatWeight("lstm", share=0.75, reason="lstm has no int8 form here").share
        0.75
    """

    name: str
    share: float
    reason: str


@dataclass(frozen=True)
class Variant:
    """One form of the network: dense, pruned or int8.

    Attributes:
        name: Name of the variant, such as ``int8``.
        parameters: Number of stored weights.
        nonzero: Number of stored weights that are not zero.
        macs: Multiply-accumulates per image; None if they were not counted.
        bytes: Size of ``file`` on disk in bytes; None if there is no file.
        file: Name of the file that holds the variant, inside the artefact or next to it.
        metric: The measured metric; None if it was not measured, and ``note`` says why.
        latency: The measured latency; None if it was not measured.
        fidelity: Distance to the float network; only for converted variants.
        epoch: Number of epochs that the weights were trained.
        note: What a reader must know to understand the figures.
        int8_share: Share of the weights that are int8, in [0, 1]; only for converted variants.
            Weights are the stored tensors of two and more dimensions.
        float_weights: The weights that are not int8, largest first.
        formats: The same network in other formats than ONNX.

    Example:
        >>> dense = Variant("dense", parameters=1000, nonzero=1000)
        >>> dense.metric is None
        True
    """

    name: str
    parameters: int
    nonzero: int
    macs: int | None = None
    bytes: int | None = None
    file: str | None = None
    metric: Metric | None = None
    latency: Timing | None = None
    fidelity: Fidelity | None = None
    epoch: int | None = None
    note: str | None = None
    int8_share: float | None = None
    float_weights: tuple[FloatWeight, ...] = ()
    formats: tuple[FormatFile, ...] = ()


def variant_from_dict(data: Mapping[str, Any]) -> Variant:
    """Return the variant described by an object of ``card.json``.

    Args:
        data: The object, valid by the card's schema. Properties of a newer format are ignored.
    """
    fields = known_fields(Variant, data)
    if metric := fields.get("metric"):
        fields["metric"] = _metric(metric)
    if latency := fields.get("latency"):
        fields["latency"] = _timing(latency)
    if fidelity := fields.get("fidelity"):
        fields["fidelity"] = _fidelity(fidelity)
    fields["float_weights"] = tuple(
        FloatWeight(**known_fields(FloatWeight, item)) for item in fields.get("float_weights", ())
    )
    fields["formats"] = tuple(map(_format_file, fields.get("formats", ())))
    return Variant(**fields)


def known_fields(cls: type, data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of ``data`` that are fields of a dataclass."""
    return {key: value for key, value in data.items() if key in cls.__dataclass_fields__}  # type: ignore[attr-defined]


def _metric(data: Mapping[str, Any]) -> Metric:
    rows = data.get("confusion")
    confusion = None if rows is None else tuple(tuple(row) for row in rows)
    fields = {**known_fields(Metric, data), "confusion": confusion}
    return Metric(**{**fields, "interval": _pair(data.get("interval"))})


def _timing(data: Mapping[str, Any]) -> Timing:
    ratios = tuple(
        TimingRatio(**{**known_fields(TimingRatio, ratio), "interval": _pair(ratio["interval"])})
        for ratio in data.get("ratios", ())
    )
    fields = known_fields(Timing, data)
    return Timing(**{**fields, "interval": _pair(data["interval"]), "ratios": ratios})


def _fidelity(data: Mapping[str, Any]) -> Fidelity:
    layers = tuple(
        LayerFidelity(**known_fields(LayerFidelity, layer)) for layer in data.get("layers", ())
    )
    outputs = tuple(
        OutputFidelity(**known_fields(OutputFidelity, item)) for item in data.get("outputs", ())
    )
    nested = {"layers": layers, "outputs": outputs}
    nested["replay_sketch"] = tuple(data.get("replay_sketch", ()))
    return Fidelity(**{**known_fields(Fidelity, data), **nested})


def _format_file(data: Mapping[str, Any]) -> FormatFile:
    fields = known_fields(FormatFile, data)
    for name in ("inputs", "outputs"):
        ports = (known_fields(Port, port) for port in fields[name])
        fields[name] = tuple(Port(**{**port, "shape": tuple(port["shape"])}) for port in ports)
    for name in ("files", "notes", "replay_sketch"):
        fields[name] = tuple(fields.get(name, ()))
    return FormatFile(**fields)


def _pair(value: Any) -> tuple[float, float] | None:
    return None if value is None else (value[0], value[1])
