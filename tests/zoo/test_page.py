"""The page of foreign networks says what was found, and that is enough."""

from __future__ import annotations

import pytest

from zoo.networks import HUGGING_FACE, SMP, TIMM, TORCHVISION, entries
from zoo.table import PAGE, load, page, silently_wrong

#: Networks that once failed, or were frozen, and why; they stay in the list.
ONCE_FAILED = (
    *("timm/convnextv2_atto", "timm/resnetv2_50x1_bit", "timm/eca_nfnet_l0", "timm/dm_nfnet_f0"),
    *("timm/cspdarknet53", "timm/cs3darknet_s", "timm/res2net50_26w_4s", "timm/cait_xxs24_224"),
    *("timm/gmlp_s16_224", "timm/mambaout_femto", "timm/repghostnet_050", "timm/regnetz_b16"),
    *("timm/lambda_resnet26t", "timm/levit_128s", "timm/swin_tiny_patch4_window7_224"),
    *("timm/xcit_nano_12_p16_224", "timm/mixer_s32_224", "timm/resnetblur50", "hf/gpt2"),
    *("hf/bert", "hf/vit", "hf/segformer", "hf/llama", "torchvision/r3d_18"),
    *("torchvision/ssdlite320_backbone", "own/tcn_weight_norm", "own/yolo_like", "own/vae"),
    *("own/lstm", "own/unet", "own/gpt_like", "own/gan_generator"),
)


def test_the_list_has_the_networks_that_once_failed() -> None:
    names = entries().keys()
    assert set(ONCE_FAILED) <= set(names)
    assert len(names) >= 80
    assert (len(TIMM), len(TORCHVISION), len(SMP), len(HUGGING_FACE)) == (28, 12, 4, 10)


def test_the_page_is_as_it_is_generated() -> None:
    assert PAGE.read_text("utf-8") == page(), "run tests/zoo/table.py"


def test_enough_networks_are_pruned_and_quantised_and_none_is_silently_wrong() -> None:
    rows = load("results.json")
    assert sum("left" in row.get("pruned", {}) for row in rows.values()) >= 76
    assert sum("sqnr" in row.get("quantised", {}) for row in rows.values()) >= 62
    assert {name: wrong for name, row in rows.items() if (wrong := silently_wrong(row))} == {}


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"pruned": {"left": 0.5, "anew": False, "difference": 0.01}}, "differs by 1.0e-02"),
        ({"quantised": {"sqnr": 3.0, "warned": False, "said": 1, "int8": 1}}, "without a warning"),
        ({"quantised": {"sqnr": 30.0, "warned": False, "said": 1, "int8": 0.3}}, "30% int8"),
    ],
)
def test_what_is_silently_wrong_is_found(row: dict[str, dict[str, float]], what: str) -> None:
    assert what in silently_wrong(row)[0]
    right = {"left": 0.5, "anew": True, "difference": 1.0}
    assert silently_wrong({"pruned": right, "quantised": {"error": "none"}}) == []
