"""Where settings stand in the configuration of a fit."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from lit_compress.errors import SearchError
from lit_compress.search.ranges import Range
from lit_compress.search.space import Space, find, replaced

from .told import TARGET, WIDTH, Told, whole_config


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("model.width", ("model", "init_args", "width")),
        ("seed_everything", ("seed_everything",)),
        ("callbacks.FilterPruning.target", ("trainer", "callbacks", 0, "init_args", "target")),
        ("trainer.callbacks", ("trainer", "callbacks")),
        ("model.class_path", ("model", "class_path")),
    ],
)
def test_places(key: str, place: tuple[Any, ...]) -> None:
    assert find(whole_config(), key) == place


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("callbacks.FilterPrunning.target", "has no FilterPrunning: did you mean FilterPruning"),
        ("callbacks.FilterPruning.taget", r"\(FilterPruning\) has no setting 'taget': did you me"),
        ("callbacks.Else.x", "trainer.callbacks of the fit has no Else: it has FilterPruning, Com"),
        ("modle.width", "a fit has no setting 'modle': did you mean 'model'"),
        ("model.widht", r"model \(Net\) has no setting 'widht': did you mean 'width'"),
        ("model.optimizer.lr", "model.optimizer is None in the configuration .* so it has no 'lr'"),
        ("model.width.x", "model.width is 4 in the configuration"),
        ("data.zzz", r"data \(Data\) has no setting 'zzz': it has batch_size"),
    ],
)
def test_settings_that_are_not_there(key: str, message: str) -> None:
    with pytest.raises(SearchError, match=message):
        Space.of(whole_config(), (Range(key, low=1, high=2),))


def test_a_callback_that_is_there_twice() -> None:
    config = whole_config()
    config["trainer"]["callbacks"] *= 2
    with pytest.raises(SearchError, match="has FilterPruning 2 times"):
        find(config, "callbacks.FilterPruning.target")


def test_one_setting_with_two_names() -> None:
    twice = Range("trainer.callbacks.FilterPruning.target", low=0.1, high=0.2)
    with pytest.raises(SearchError, match="are the same setting"):
        Space.of(whole_config(), (TARGET, twice))


def test_a_configuration_has_the_values_and_the_given_one_is_not_changed() -> None:
    config = whole_config()
    before = copy.deepcopy(config)
    space = Space.of(config, (Range("model.width", ("data.batch_size",), low=1, high=9), TARGET))
    found = space.config_of({"model.width": 7, TARGET.key: 0.25})
    assert found["model"]["init_args"]["width"] == found["data"]["init_args"]["batch_size"] == 7
    assert found["trainer"]["callbacks"][0]["init_args"]["target"] == 0.25
    assert config == before


def test_a_value_is_copied_into_each_configuration() -> None:
    choice = [{"a": 1}]
    found = replaced({"x": None}, {("x",): choice})
    found["x"][0]["a"] = 2
    assert choice == [{"a": 1}]


def test_a_value_that_cannot_be_built_is_named() -> None:
    too_wide = Range("model.width", low=1, high=16)
    with pytest.raises(SearchError, match=r"model\.width: 16 is not possible: the network has"):
        Space.of(whole_config(), (too_wide,)).check(Told().build)
    Space.of(whole_config(), (WIDTH, TARGET)).check(Told().build)


def test_choices_of_callbacks() -> None:
    of = Range("callbacks.FilterPruning.target", choices=(0.1, 0.5))
    width = Range("model.width", choices=(1, 2))
    assert Space.of(whole_config(), (of, width)).choices_of_callbacks() == [of.key]
