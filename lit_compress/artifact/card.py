"""The card: what was measured of each variant, how, on what, and the hashes of the files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from lit_compress.errors import ArtifactError

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Metric:
    """One measured figure of merit.

    Attributes:
        name: Key that the module logged.
        value: Its value.
        split: Split of the data it was measured on.
        n: Number of examples.
        interval: 95 % Wilson interval where the value is a share of ``n`` (an accuracy), else None.
    """

    name: str
    value: float
    split: str
    n: int
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class TimingRatio:
    """How many times faster than another variant; a claim only where ``significant``."""

    over: str
    ratio: float
    interval: tuple[float, float]
    significant: bool


@dataclass(frozen=True)
class Timing:
    """Latency of one call, measured in turn with the other variants.

    Attributes:
        engine: What ran it: ``pytorch`` (eager) or ``onnxruntime``.
        batch: Images a call.
        threads: Threads it ran on.
        seconds: Median.
        interval: Interval of the median.
        confidence: Confidence of the intervals.
        rounds: Number of interleaved rounds.
        ratios: Against the variants it was timed in turn with.
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
    """What quantising one layer alone does to the outputs.

    Attributes:
        name: The layer; an input; or a float operation whose output a layer takes quantised.
        weight_db: SQNR of the outputs with its weight quantised; None if it has none.
        activation_db: With its output quantised; None if that stays float.
        float: Whether it was left in float.
    """

    name: str
    weight_db: float | None
    activation_db: float | None
    float: bool = False


@dataclass(frozen=True)
class Fidelity:
    """How close a converted file comes to the float network.

    Attributes:
        sqnr_db: Signal to quantisation noise ratio of the outputs, in dB.
        agreement: Share of inputs with the same arg-max.
        n: Number of inputs compared.
        replay_db: SQNR of the inputs that the artefact holds.
        layers: By layer, in the order of the graph.
        evaluations: How often a file was measured to keep ``max_drop``; 0 without it.
    """

    sqnr_db: float
    agreement: float
    n: int
    replay_db: float | None = None
    layers: tuple[LayerFidelity, ...] = ()
    evaluations: int = 0


@dataclass(frozen=True)
class Variant:
    """One form of the network: dense, pruned, int8.

    Attributes:
        name: What it is.
        parameters: Stored weights.
        nonzero: Those that are not zero.
        macs: Multiply-accumulates an image.
        bytes: Size on disk of ``file``, None where there is no file.
        file: File that holds it, in the artefact or beside it.
        metric: None where it was not measured; ``note`` then says why.
        latency: None where it was not measured.
        fidelity: Only of converted variants.
        epoch: Epochs trained when the weights were taken.
        note: What a reader must know of the figures.
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


@dataclass(frozen=True)
class Card:
    """Everything known of a run's variants; ``card.json`` is this and nothing else.

    Attributes:
        run: Name of the run.
        variants: In the order dense, pruned, int8.
        environment: Versions, processor and threads.
        config: The arguments of the callbacks that made it.
        seed: Seed of the run, where one was set.
        files: SHA-256 of each file in the folder.
        pruning: Target and what was reached, by pruning callback.
        format_version: Version of this layout.
    """

    run: str
    variants: tuple[Variant, ...]
    environment: dict[str, Any]
    config: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None
    files: dict[str, str] = field(default_factory=dict)
    pruning: tuple[dict[str, Any], ...] = ()
    format_version: int = FORMAT_VERSION

    def variant(self, name: str) -> Variant:
        """Return the variant of a name.

        Raises:
            ArtifactError: If the card has none of that name.
        """
        for variant in self.variants:
            if variant.name == name:
                return variant
        names = ", ".join(variant.name for variant in self.variants) or "none"
        raise ArtifactError(f"the card has no variant {name!r}; it has: {names}")

    def to_json(self) -> str:
        """Return the card as JSON text, checked against its schema.

        Raises:
            ArtifactError: If a field has a value the schema does not allow, NaN among them.
        """
        try:
            text = json.dumps(asdict(self), indent=2, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ArtifactError(f"the card cannot be written as JSON: {error}") from error
        _check(json.loads(text), "the card")
        return text + "\n"

    @classmethod
    def from_json(cls, text: str, source: str = "card.json") -> Card:
        """Return the card that a JSON text holds; fields of a newer writer are passed over.

        Args:
            text: The JSON text.
            source: Where it came from, for the message.

        Raises:
            ArtifactError: If it is not JSON or does not follow the schema.
        """
        try:
            data = json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise ArtifactError(
                f"{source} is not JSON ({error}): write the artefact anew"
            ) from error
        _check(data, source)
        data["variants"] = tuple(_variant(item) for item in data["variants"])
        data["pruning"] = tuple(data.get("pruning", ()))
        return cls(**_known(cls, data))


@cache
def schema() -> dict[str, Any]:
    """Return the JSON schema of ``card.json``, as shipped with the package."""
    text = files("lit_compress.artifact").joinpath("card.schema.json").read_text("utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _check(data: Any, source: str) -> None:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    version = data.get("format_version") if isinstance(data, dict) else None
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise ArtifactError(
            f"{source} has format_version {version}, but this lit-compress reads up to "
            f"{FORMAT_VERSION}: update lit-compress"
        )
    error = best_match(Draft202012Validator(schema()).iter_errors(data))
    if error is not None:
        where = "/".join(str(part) for part in error.absolute_path) or "the top level"
        message = error.message if len(error.message) < 200 else error.message[:200] + " ..."
        raise ArtifactError(f"{source} does not follow the card's schema at {where}: {message}")


def _known(cls: type, data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in data.items() if key in cls.__dataclass_fields__}  # type: ignore[attr-defined]


def _pair(value: Any) -> tuple[float, float] | None:
    return None if value is None else (value[0], value[1])


def _variant(data: dict[str, Any]) -> Variant:
    data = _known(Variant, data)
    if metric := data.get("metric"):
        data["metric"] = Metric(
            **{**_known(Metric, metric), "interval": _pair(metric.get("interval"))}
        )
    if latency := data.get("latency"):
        ratios = tuple(
            TimingRatio(**{**_known(TimingRatio, ratio), "interval": _pair(ratio["interval"])})
            for ratio in latency.get("ratios", ())
        )
        data["latency"] = Timing(
            **{
                **_known(Timing, latency),
                "interval": _pair(latency["interval"]),
                "ratios": ratios,
            }
        )
    if fidelity := data.get("fidelity"):
        layers = tuple(
            LayerFidelity(**_known(LayerFidelity, layer)) for layer in fidelity.get("layers", ())
        )
        data["fidelity"] = Fidelity(**{**_known(Fidelity, fidelity), "layers": layers})
    return Variant(**data)
