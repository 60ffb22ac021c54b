"""The epochs of a card come back as they were, and each knows its layers."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from lit_compress.artifact.history import Epoch, Layers, layers_from, with_layers

counts = st.dictionaries(st.text(max_size=4), st.integers(0, 10**6), max_size=3)
layers = st.none() | st.builds(Layers, counts, counts)
epochs = st.builds(
    Epoch,
    st.integers(0, 500),
    st.floats(0, 1e6),
    st.integers(0, 10**9),
    metric=st.none() | st.floats(0, 1),
    reached=st.lists(st.floats(0, 1), max_size=2).map(tuple),
    pruned=st.booleans(),
    macs=st.none() | st.integers(0, 10**12),
    layers=layers,
)


@settings(max_examples=60, deadline=None)
@given(epochs)
def test_an_epoch_comes_back_from_json(epoch: Epoch) -> None:
    assert Epoch.from_dict(json.loads(json.dumps(epoch.to_dict()))) == epoch


def test_what_a_newer_version_adds_is_passed_over() -> None:
    assert Epoch.from_dict({"epoch": 1, "seconds": 2.0, "parameters": 3, "weather": "dry"}) == (
        Epoch(1, 2.0, 3)
    )
    assert layers_from({"channels": {"a": 1}, "colour": 3}) == Layers({"a": 1})


@settings(max_examples=60, deadline=None)
@given(st.lists(epochs, max_size=6))
def test_each_epoch_has_the_layers_of_the_last_one_that_has_some(history: list[Epoch]) -> None:
    filled = with_layers(history)
    for place, epoch in enumerate(filled):
        known = [e.layers for e in history[: place + 1] if e.layers is not None]
        assert epoch.layers == (known[-1] if known else Layers())
    assert [e.epoch for e in filled] == [e.epoch for e in history]
