"""The table of a front, its configs, and what is removed."""

from __future__ import annotations

from pathlib import Path

import yaml

from lit_compress.search.front.points import Point
from lit_compress.search.front.table import clear, write_front
from lit_compress.search.space import Space

from ..told import OBJECTIVES, TARGET, WIDTH, study, trial, whole_config

SPACE = Space.of(whole_config(), (WIDTH, TARGET))


def point(number: int) -> Point:
    settings = {WIDTH.key: 7, TARGET.key: 0.25}
    return Point(number, (0.5, 1200.0), settings, f"/out/{number}", "host")


def test_a_row_and_a_config_for_each_point(tmp_path: Path) -> None:
    write_front(tmp_path, [point(3), point(12)], SPACE, OBJECTIVES)
    lines = (tmp_path / "front.csv").read_text().splitlines()
    assert lines[0] == f"trial,val_acc,bytes,{WIDTH.key},{TARGET.key},config,artifact,host"
    assert lines[2] == "12,0.5,1200,7,0.25,front/trial-00012.yaml,/out/12,host"
    text = (tmp_path / "front" / "trial-00012.yaml").read_text()
    assert text.startswith("# Trial 12 of a search: val_acc 0.5000, bytes 1,200.\n")
    assert "lit-compress fit --config trial-00012.yaml" in text
    assert yaml.safe_load(text) == SPACE.config_of(point(12).settings)


def test_configs_of_an_earlier_front_are_removed(tmp_path: Path) -> None:
    write_front(tmp_path, [point(3)], SPACE, OBJECTIVES)
    own = tmp_path / "front" / "own.yaml"
    own.touch()
    write_front(tmp_path, [point(4)], SPACE, OBJECTIVES)
    assert sorted(path.name for path in own.parent.iterdir()) == ["own.yaml", "trial-00004.yaml"]


def test_what_is_kept_of_each_trial(tmp_path: Path) -> None:
    trials = study(
        trial("COMPLETE", [0.9, 1.0]),
        trial("COMPLETE", [0.1, 9.0]),
        trial("PRUNED"),
        trial("FAIL", reason="out of memory"),
        trial("FAIL"),
        trial("RUNNING"),
    ).trials
    for one in trials:
        folder = tmp_path / "trials" / f"{one.number:05}"
        (folder / "artifact").mkdir(parents=True)
        for name in ("fit.log", "artifact/card.json", "artifact/model.onnx"):
            (folder / name).touch()
    clear(tmp_path, trials, [point(0)])
    files = [path for path in sorted(tmp_path.rglob("*")) if path.is_file()]
    assert [str(path.relative_to(tmp_path / "trials")) for path in files] == [
        "00000/artifact/card.json",
        "00000/artifact/model.onnx",
        "00000/fit.log",
        "00001/artifact/card.json",
        "00003/fit.log",
        "00005/artifact/card.json",
        "00005/artifact/model.onnx",
        "00005/fit.log",
    ]
