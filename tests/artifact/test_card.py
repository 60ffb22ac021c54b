"""What a card refuses, and that what it accepts comes back as it was."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from lit_compress.artifact import Card, Fidelity, Metric, Timing, TimingRatio, Variant
from lit_compress.artifact.card import FORMAT_VERSION, digest_of, schema
from lit_compress.errors import ArtifactError

RATIO = TimingRatio("dense", 2.5, (2.25, 2.75), True)
TIMING = Timing("pytorch", 1, 2, 0.001, (0.0009, 0.0011), 0.99, 60, (RATIO,))
METRIC = Metric("val_acc", 0.75, "val", 400, (0.7, 0.8))
VARIANTS = (
    Variant("dense", 100, 99, 5000, 1234, "best.ckpt", METRIC, epoch=3),
    Variant("int8", 100, 50, 5000, 456, "model.onnx", METRIC, TIMING, Fidelity(30.5, 0.99, 64)),
)
CARD = Card(
    run="run",
    variants=VARIANTS,
    environment={"torch": "2.14", "cores": 2},
    config={"callback": {"target": 0.5}},
    seed=7,
    files={"model.onnx": "0123456789abcdef" * 4},
    pruning=({"callback": "MagnitudePruning", "target": 0.5, "reached": 0.5, "epochs": [1, 2]},),
)

finite = st.floats(allow_nan=False, allow_infinity=False)
positive = st.floats(0, exclude_min=True, allow_infinity=False)
counts, share, text = st.integers(0, 2**60), st.floats(0, 1), st.text(max_size=8)
intervals = st.tuples(finite, finite)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)
mappings = st.dictionaries(text, values, max_size=3)
ratios = st.builds(TimingRatio, text, positive, intervals, st.booleans())
variants = st.builds(
    Variant,
    name=st.text(min_size=1, max_size=8),
    parameters=counts,
    nonzero=counts,
    macs=st.none() | counts,
    bytes=st.none() | counts,
    file=st.none() | text,
    metric=st.none()
    | st.builds(Metric, text, finite, text, counts, interval=st.none() | intervals),
    latency=st.none()
    | st.builds(
        Timing,
        text,
        st.integers(1, 64),
        st.integers(1, 64),
        positive,
        intervals,
        share,
        counts,
        st.lists(ratios, max_size=2).map(tuple),
    ),
    fidelity=st.none() | st.builds(Fidelity, finite, share, counts),
    epoch=st.none() | counts,
    note=st.none() | text,
)
cards = st.builds(
    Card,
    run=text,
    variants=st.lists(variants, max_size=3).map(tuple),
    environment=mappings,
    config=mappings,
    seed=st.none() | st.integers(),
    files=st.dictionaries(
        st.text(st.characters(exclude_characters="/\\", exclude_categories=["Cs"]), min_size=1),
        st.text("0123456789abcdef", min_size=64, max_size=64),
        max_size=2,
    ),
    pruning=st.lists(
        st.fixed_dictionaries(
            {"callback": text, "target": share, "reached": share},
            optional={"epochs": st.lists(counts, max_size=3)},
        ),
        max_size=2,
    ).map(tuple),
)


@settings(max_examples=60, deadline=None)
@given(cards)
def test_json_gives_the_card_back(card: Card) -> None:
    assert Card.from_json(card.to_json()) == card


def test_json_of_a_full_card() -> None:
    data = json.loads(CARD.to_json())
    assert data["format_version"] == FORMAT_VERSION == 1
    assert data["variants"][1]["latency"]["ratios"][0]["interval"] == [2.25, 2.75]
    assert data["files"] == CARD.files
    Draft202012Validator(schema()).validate(data)


def test_the_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(schema())
    assert not Draft202012Validator(schema()).is_valid({})


def test_intervals_and_sequences_stay_tuples() -> None:
    read = Card.from_json(CARD.to_json())
    variant = read.variant("int8")
    assert variant.metric is not None
    assert variant.latency is not None
    found = [
        variant.metric.interval,
        variant.latency.interval,
        variant.latency.ratios,
        variant.latency.ratios[0].interval,
        read.variants,
        read.pruning,
    ]
    assert [type(value) for value in found] == [tuple] * 6


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", ["metric", "interval", "config"])
def test_numbers_that_are_none_are_not_written(value: float, place: str) -> None:
    metric = {
        "metric": Metric("m", value, "val", 1),
        "interval": Metric("m", 0.5, "val", 1, (value, 1.0)),
        "config": None,
    }[place]
    card = Card("r", (Variant("a", 1, 1, metric=metric),), {}, config={"x": value})
    with pytest.raises(ArtifactError, match="cannot be written as JSON"):
        card.to_json()


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_are_none_are_not_read(value: str) -> None:
    """Python reads NaN, which is not JSON; such a card could not be written again."""
    text = CARD.to_json().replace('"value": 0.75', f'"value": {value}')
    assert value in text
    with pytest.raises(ArtifactError, match=r"card\.json"):
        Card.from_json(text)


@pytest.mark.parametrize(
    ("card", "where"),
    [
        (Card("r", (Variant("a", -1, 0),), {}), "variants/0/parameters"),
        (Card("r", (Variant("a", 1, 0), Variant("", 1, 0)), {}), "variants/1/name"),
        (Card("r", (Variant("a", 1, 0, fidelity=Fidelity(1.0, 1.5, 1)),), {}), "agreement"),
        (Card("r", (), {}, files={"a/b": "0" * 64}), "files"),
        (Card("r", (), {}, files={"a": "0" * 63}), "files/a"),
        (Card("r", (), {}, pruning=({"callback": "p", "target": 2, "reached": 0},)), "target"),
        (Card("r", (), {}, format_version=0), "format_version"),
    ],
)
def test_a_card_that_breaks_its_schema_is_not_written(card: Card, where: str) -> None:
    with pytest.raises(ArtifactError, match=f"the card does not follow .*{where}"):
        card.to_json()


def test_a_value_json_does_not_know_is_not_written() -> None:
    with pytest.raises(ArtifactError, match=r"cannot be written as JSON.*PosixPath"):
        Card("r", (), {}, config={"path": Path("/")}).to_json()


def test_a_newer_format_is_refused() -> None:
    text = json.dumps({**json.loads(CARD.to_json()), "format_version": 2, "variants": "moved"})
    with pytest.raises(ArtifactError, match=r"x has format_version 2, but .* update lit-"):
        Card.from_json(text, "x")


def extended(data: Any) -> Any:
    if isinstance(data, list):
        return [extended(item) for item in data]
    if isinstance(data, dict):
        return {key: extended(value) for key, value in data.items()} | {"from_the_future": 1}
    return data


def test_unknown_properties_are_passed_over() -> None:
    data = json.loads(CARD.to_json())
    data = {**data, "variants": extended(data["variants"]), "from_the_future": [None]}
    assert Card.from_json(json.dumps(data | {"digest": digest_of(data)})) == CARD


def test_a_card_that_was_changed_is_refused() -> None:
    """A figure could be changed in a card, and nobody saw it."""
    text = CARD.to_json()
    assert Card.from_json(json.dumps(json.loads(text), sort_keys=True)) == CARD
    data = json.loads(text)
    data["variants"][0]["parameters"] += 1
    with pytest.raises(ArtifactError, match="was changed after it was written"):
        Card.from_json(json.dumps(data))
    del data["digest"]  # as cards of older versions are
    assert Card.from_json(json.dumps(data)).variants[0].parameters == (
        CARD.variants[0].parameters + 1
    )


@pytest.mark.parametrize("version", [2.0, 1.0, True, "1", None])
def test_an_odd_version_is_refused(version: object) -> None:
    """2.0 is a whole number to a JSON schema, and was read as version 1."""
    data = json.loads(CARD.to_json()) | {"format_version": version}
    with pytest.raises(ArtifactError, match="format_version must be a whole number"):
        Card.from_json(json.dumps(data))


@pytest.mark.parametrize(
    "path",
    [
        ("run",),
        ("format_version",),
        ("variants",),
        ("files",),
        ("variants", 1, "metric"),
        ("variants", 1, "metric", "interval"),
        ("variants", 1, "latency", "interval"),
        ("variants", 1, "latency", "ratios", 0, "over"),
        ("variants", 1, "fidelity", "n"),
        ("pruning", 0, "reached"),
    ],
)
def test_a_required_property_that_is_missing(path: tuple[Any, ...]) -> None:
    data = json.loads(CARD.to_json())
    owner = data
    for key in path[:-1]:
        owner = owner[key]
    del owner[path[-1]]
    where = "/".join(map(str, path[:-1][:3])) or "the top level"
    with pytest.raises(ArtifactError, match=rf"card\.json does not follow .* at {where}"):
        Card.from_json(json.dumps(data))


def test_pruning_may_be_missing() -> None:
    data = json.loads(CARD.to_json())
    del data["pruning"], data["digest"]
    assert Card.from_json(json.dumps(data)).pruning == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ('{"run": "a"', "not JSON"),
        ("[]", "schema at the top level"),
        ("null", "schema at the top level"),
        ("9" * 10_000, "not JSON"),
    ],
)
def test_a_text_that_is_no_card(text: str, message: str) -> None:
    with pytest.raises(ArtifactError, match=f"some/card.json .*{message}"):
        Card.from_json(text, "some/card.json")


def test_a_text_nested_too_deep_is_no_card() -> None:
    """A megabyte of brackets came out as a RecursionError."""
    with pytest.raises(ArtifactError, match="not JSON"):
        Card.from_json("[" * 1_000_000)


@settings(max_examples=100, deadline=None)
@given(st.data(), values)
def test_a_changed_card_is_read_or_refused(data: st.DataObject, value: Any) -> None:
    changed: Any = copy.deepcopy(json.loads(CARD.to_json()))
    owner, key = changed, data.draw(st.sampled_from(sorted(changed)))
    while owner[key] and isinstance(owner[key], (dict, list)) and data.draw(st.booleans()):
        owner = owner[key]
        keys = sorted(owner) if isinstance(owner, dict) else range(len(owner))
        key = data.draw(st.sampled_from(keys))
    owner[key] = value
    try:
        card = Card.from_json(json.dumps(changed))
    except ArtifactError as error:
        assert "card.json" in str(error)  # noqa: PT017
    else:
        assert Card.from_json(card.to_json()) == card


def test_a_long_message_is_cut() -> None:
    data = {**json.loads(CARD.to_json()), "run": ["x"] * 10_000}
    with pytest.raises(ArtifactError, match=r"at run: .* \.\.\.$") as caught:
        Card.from_json(json.dumps(data))
    assert len(str(caught.value)) < 400


def test_variant_by_name() -> None:
    assert CARD.variant("int8") is VARIANTS[1]
    with pytest.raises(ArtifactError, match="no variant 'int4'; it has: dense, int8"):
        CARD.variant("int4")
    with pytest.raises(ArtifactError, match="it has: none"):
        Card("r", (), {}).variant("dense")
