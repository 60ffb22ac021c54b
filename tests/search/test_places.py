"""Where trials write, and what is kept of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from lit_compress.artifact.write import write_card
from lit_compress.errors import SearchError
from lit_compress.search.places import (
    card_of,
    check_places,
    claim,
    keep_card,
    placed,
    remove,
    trial_folder,
)

from .told import card, whole_config


def test_a_folder_is_of_one_study(tmp_path: Path) -> None:
    claim(tmp_path / "new", "first")
    claim(tmp_path / "new", "first")
    with pytest.raises(SearchError, match=r"another study .*'first'.* not of 'second': give anoth"):
        claim(tmp_path / "new", "second")


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SearchError, match="cannot be used"):
        claim(tmp_path / "file" / "inner", "first")
    (tmp_path / "study.json").write_text("{")
    with pytest.raises(SearchError, match="cannot be used"):
        claim(tmp_path, "first")


def test_all_that_a_fit_writes_is_in_its_folder(tmp_path: Path) -> None:
    config = whole_config()
    config["trainer"]["logger"] = {"class_path": "CSVLogger", "init_args": {"save_dir": "runs"}}
    one = placed(config, tmp_path)["trainer"]
    assert one["default_root_dir"] == one["logger"]["init_args"]["save_dir"] == str(tmp_path)
    config["trainer"]["logger"] = [config["trainer"]["logger"], {"class_path": "Own"}]
    assert placed(config, tmp_path)["trainer"]["logger"] == [one["logger"], {"class_path": "Own"}]
    assert config["trainer"]["default_root_dir"] is None


def test_a_callback_with_a_folder_of_its_own() -> None:
    config = whole_config()
    check_places(config)
    config["trainer"]["callbacks"][1]["init_args"]["dirpath"] = "out"
    with pytest.raises(SearchError, match=r"callbacks\.CompressionReport\.dirpath is out"):
        check_places(config)


def test_the_card_of_a_trial(tmp_path: Path) -> None:
    folder = trial_folder(tmp_path, 7)
    assert folder == tmp_path / "trials" / "00007"
    (folder / "artifact").mkdir(parents=True)
    with pytest.raises(SearchError, match=r"and .*00007 has 0"):
        card_of(folder)
    write_card(folder / "artifact", card(0.5, 3))
    assert card_of(folder) == (card(0.5, 3), folder / "artifact")


def test_what_is_kept(tmp_path: Path) -> None:
    inner = tmp_path / "run" / "artifact"
    inner.mkdir(parents=True)
    for path in (inner / "card.json", inner / "model.onnx", tmp_path / "fit.log", inner / "x"):
        path.touch()
    keep_card(tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [inner / "card.json"]
    (tmp_path / "fit.log").touch()
    remove(tmp_path, but="fit.log")
    assert list(tmp_path.iterdir()) == [tmp_path / "fit.log"]
    remove(tmp_path)
    remove(tmp_path)
    keep_card(tmp_path)
    assert not tmp_path.exists()
