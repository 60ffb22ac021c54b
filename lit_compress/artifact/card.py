"""The card of an artefact: the measured variants, the environment, and the hashes of the files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Any

from lit_compress.artifact.history import Epoch, Layers, layers_from
from lit_compress.artifact.json_schema import schema_errors
from lit_compress.artifact.variant import (
    Fidelity,
    LayerFidelity,
    Metric,
    Timing,
    TimingRatio,
    Variant,
    known_fields,
    variant_from_dict,
)
from lit_compress.errors import ArtifactError
from lit_compress.files.json_text import parse_json
from lit_compress.files.reading import short_repr

__all__ = [
    "FORMAT_VERSION",
    "Card",
    "Epoch",
    "Fidelity",
    "LayerFidelity",
    "Layers",
    "Metric",
    "Timing",
    "TimingRatio",
    "Variant",
    "schema",
]

FORMAT_VERSION = 1
#: Key of the SHA-256 of everything else on the card.
DIGEST = "digest"


@dataclass(frozen=True, repr=False)
class Card:
    """All facts about the variants of a run; the content of ``card.json``.

    Attributes:
        run: Name of the run.
        variants: The variants, in the order dense, pruned, int8.
        environment: Versions of the packages, processor and core count, see
            :func:`lit_compress.measure.environment`.
        config: Arguments of the callbacks, by name of the callback.
        seed: Random seed of the run; None if none was set.
        files: SHA-256 of each file in the folder in hexadecimal, by file name.
        pruning: For each pruning callback its name (``callback``), the ``target`` and the share
            that was ``reached``, both in [0, 1], and optionally the ``epochs`` in which it pruned.
        history: What the run looked like after each epoch; empty without CompressionReport, and
            in old cards.
        unpruned: What the layers had before the first pruning; None where nothing was pruned or no
            CompressionReport recorded it.
        format_version: Version of the file format.

    Example:
        >>> card = Card("digits", (Variant("dense", 1000, 1000), Variant("int8", 1000, 990)),
        ...             environment={"torch": "2.14.1"})
        >>> card.variant("int8").nonzero
        990
        >>> Card.from_json(card.to_json()) == card
        True
        >>> card
        Card of 'digits'
          dense: 1,000 parameters
          int8: 1,000 parameters
    """

    run: str
    variants: tuple[Variant, ...]
    environment: dict[str, Any]
    config: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None
    files: dict[str, str] = field(default_factory=dict)
    pruning: tuple[dict[str, Any], ...] = ()
    history: tuple[Epoch, ...] = ()
    unpruned: Layers | None = None
    format_version: int = FORMAT_VERSION

    def __repr__(self) -> str:
        """Return a line for the run, and one for each variant."""
        return "\n".join([f"Card of {self.run!r}", *(f"  {_line(v)}" for v in self.variants)])

    def variant(self, name: str) -> Variant:
        """Return the variant with this name.

        Raises:
            ArtifactError: If the card has no variant with this name.
        """
        for variant in self.variants:
            if variant.name == name:
                return variant
        names = ", ".join(variant.name for variant in self.variants) or "none"
        raise ArtifactError(f"the card has no variant {name!r}; it has: {names}")

    def to_json(self) -> str:
        """Return the card as JSON text with its digest, after validation against the schema.

        Raises:
            ArtifactError: If a field has a value that JSON or the schema does not allow, such as
                NaN.
        """
        try:
            text = json.dumps(asdict(self), allow_nan=False)
            data = parse_json(text)
        except (TypeError, ValueError) as error:
            raise ArtifactError(f"the card cannot be written as JSON: {error}") from error
        _validate(data, "the card")
        return json.dumps({**data, DIGEST: digest_of(data)}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str = "card.json") -> Card:
        """Return the card stored in a JSON text. Properties of a newer format are ignored.

        Args:
            text: The JSON text.
            source: Name of its origin, for error messages.

        Raises:
            ArtifactError: If the text is not JSON, does not follow the schema, was changed after
                it was written, or has a newer ``format_version``.
        """
        try:
            data = parse_json(text)
        except ValueError as error:
            raise ArtifactError(
                f"{source} is not JSON ({error}): write the artefact again"
            ) from error
        _validate(data, source)
        _check_digest(data, source)
        data["variants"] = tuple(variant_from_dict(item) for item in data["variants"])
        data["pruning"] = tuple(data.get("pruning", ()))
        data["history"] = tuple(map(Epoch.from_dict, data.get("history", ())))
        data["unpruned"] = layers_from(data.get("unpruned"))
        return cls(**known_fields(cls, data))


@cache
def schema() -> dict[str, Any]:
    """Return the JSON schema of ``card.json`` (Draft 2020-12), as shipped with the package.

    Example:
        >>> schema()["title"]
        'lit-compress card'
    """
    text = files("lit_compress.artifact").joinpath("card.schema.json").read_text("utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def digest_of(data: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a card's content, without its own digest, in hexadecimal.

    It is that of the content as JSON with sorted keys, no spaces and ASCII characters alone.

    Args:
        data: The content of ``card.json``.

    Example:
        >>> digest_of({"run": "digits"}) == digest_of({"digest": "", "run": "digits"})
        True
    """
    rest = {key: value for key, value in data.items() if key != DIGEST}
    return sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _check_digest(data: dict[str, Any], source: str) -> None:
    digest = data.pop(DIGEST, None)  # cards of older versions have none
    if digest is not None and digest != digest_of(data):
        raise ArtifactError(
            f"{source} was changed after it was written: its digest is of another content. Copy "
            "the artefact again"
        )


def _line(variant: Variant) -> str:
    """Return name, metric and sizes of a variant."""
    facts = [f"{variant.parameters:,} parameters"]
    if variant.metric is not None:
        facts.insert(0, f"{variant.metric.name} {variant.metric.value:.4f}")
    if variant.bytes is not None:
        facts.append(f"{variant.bytes:,} bytes")
    return f"{variant.name}: {', '.join(facts)}"


def _validate(data: Any, source: str) -> None:
    """Check a parsed card against the schema."""
    # A card without one does not follow the schema.
    version = data.get("format_version", 1) if isinstance(data, dict) else 1
    if not isinstance(version, int) or isinstance(version, bool):
        raise ArtifactError(
            f"{source} is not a card: format_version must be a whole number, got "
            f"{short_repr(version)}"
        )
    if version > FORMAT_VERSION:
        raise ArtifactError(
            f"{source} has format_version {version}, but this lit-compress reads up to "
            f"{FORMAT_VERSION}: update lit-compress"
        )
    error = next(schema_errors(data, schema()), None)
    if error is not None:
        where = "/".join(str(part) for part in error.path) or "the top level"
        message = error.message if len(error.message) < 200 else error.message[:200] + " ..."
        raise ArtifactError(f"{source} does not follow the card's schema at {where}: {message}")
