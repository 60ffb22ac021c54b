from decimal import Decimal
from math import ceil

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor, nn
from torch.nn.utils import prune

from lit_compress.errors import InvalidArgumentError, PatternError
from lit_compress.modules import AlexNet, MobileNetV2, ShuffleNetV2
from lit_compress.pruning import magnitude_masks, pack, pruned_count, sparsity, unpack
from lit_compress.pruning.masks import exact_share

SHARES = st.decimals("0", "0.99", places=2).map(float)
WEIGHTS = arrays(np.float32, st.integers(1, 60), elements=st.integers(-3, 3).map(float))


def naive(weights: list[float], share: float) -> list[bool]:
    """Sort by magnitude, then index; drop the first ceil(n * share), in decimal arithmetic."""
    drop = ceil(len(weights) * Decimal(repr(share)))
    order = sorted(range(len(weights)), key=lambda i: (abs(weights[i]), i))
    selected = set(order[:drop])
    return [i not in selected for i in range(len(weights))]


@given(WEIGHTS, SHARES)
def test_one_tensor_as_a_naive_sort_with_ties_by_index(weights: np.ndarray, share: float) -> None:
    mask = magnitude_masks({"w": torch.from_numpy(weights)}, share)["w"]
    assert mask.tolist() == naive(weights.tolist(), share)


@given(st.lists(WEIGHTS, min_size=1, max_size=4), SHARES)
def test_global_ranks_all_tensors_together(parts: list[np.ndarray], share: float) -> None:
    weights = {str(i): torch.from_numpy(part) for i, part in enumerate(parts)}
    masks = magnitude_masks(weights, share, "global")
    joined = [kept for mask in masks.values() for kept in mask.tolist()]
    assert joined == naive(np.concatenate(parts).tolist(), share)


@given(st.lists(WEIGHTS, min_size=1, max_size=4), SHARES)
def test_local_prunes_each_tensor_alone(parts: list[np.ndarray], share: float) -> None:
    weights = {str(i): torch.from_numpy(part) for i, part in enumerate(parts)}
    masks = magnitude_masks(weights, share, "local")
    assert [mask.tolist() for mask in masks.values()] == [naive(p.tolist(), share) for p in parts]


@given(WEIGHTS, SHARES, SHARES)
def test_what_was_dropped_stays_dropped(weights: np.ndarray, first: float, second: float) -> None:
    low, high = sorted((first, second))
    tensor = torch.from_numpy(weights)
    before = magnitude_masks({"w": tensor}, low)
    changed = {"w": tensor.flip(0) * before["w"]}  # zero where it was dropped, else anything
    after = magnitude_masks(changed, high, previous=before)
    assert not (after["w"] & ~before["w"]).any()
    assert int((~after["w"]).sum()) == pruned_count(len(weights), exact_share(high))


@pytest.mark.parametrize("amount", [0.1, 0.37, 0.5, 0.51, 0.9])
def test_agrees_with_torch_prune(amount: float) -> None:
    layer = nn.Conv2d(3, 8, 3)
    count = pruned_count(layer.weight.numel(), exact_share(amount))
    ours = magnitude_masks({"w": layer.weight}, amount)["w"]
    theirs = prune.L1Unstructured(count).compute_mask(layer.weight, torch.ones_like(layer.weight))
    assert torch.equal(ours, theirs.bool())


def test_counts_have_no_float_error() -> None:
    assert pruned_count(100, exact_share(0.07)) == 7  # 0.07 * 100 is 7.000000000000001
    assert pruned_count(10, exact_share(0.7)) == 7
    assert pruned_count(5, exact_share(0.0)) == 0


def test_memory_format_does_not_matter() -> None:
    weight = torch.randn(6, 4, 3, 3).round()
    last = weight.to(memory_format=torch.channels_last)
    plain, other = (magnitude_masks({"w": w}, 0.4)["w"] for w in (weight, last))
    assert torch.equal(plain, other)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions(dtype: torch.dtype) -> None:
    mask = magnitude_masks({"w": torch.tensor([3.0, -1.0, 2.0, 0.5], dtype=dtype)}, 0.5)["w"]
    assert mask.tolist() == [True, False, True, False]


@pytest.mark.parametrize("share", [-0.1, 1.0, 7, float("nan"), "0.5", None, True])
def test_a_share_outside_the_range_is_refused(share: object) -> None:
    with pytest.raises(InvalidArgumentError, match=r"\[0, 1\)"):
        exact_share(share)  # type: ignore[arg-type]


def test_bad_scope_and_nan_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="scope must be 'global' or 'local', got 'all'"):
        magnitude_masks({"w": torch.ones(3)}, 0.5, "all")  # type: ignore[arg-type]
    with pytest.raises(PatternError, match=r"layer\.weight holds NaN"):
        magnitude_masks({"layer.weight": torch.tensor([1.0, float("nan")])}, 0.5)


@given(arrays(bool, st.tuples(st.integers(1, 5), st.integers(1, 9))))
def test_packing_is_exact(values: np.ndarray) -> None:
    mask = torch.from_numpy(values)
    assert torch.equal(unpack(pack(mask), mask.shape), mask)


def test_a_packed_mask_of_another_shape_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="another architecture"):
        unpack(pack(torch.ones(8, dtype=torch.bool)), (3, 3))


def test_sparsity_is_the_share_dropped() -> None:
    masks = {"a": torch.tensor([True, False]), "b": torch.tensor([False, False])}
    assert sparsity(masks) == 0.75
    assert sparsity({}) == 0.0


# Non-zeros that the original code of arXiv 2001.04850 leaves: whole filters of convolutions, single
# weights of linear layers, the norms' weights untouched; the same share of each layer.
PAPER = [
    (MobileNetV2, 3, {0.0: 2_219_616, 0.3: 1_556_638, 0.4: 1_336_533, 0.7: 675_497, 0.9: 235_253}),
    (MobileNetV2, 1, {0.0: 2_219_040, 0.2: 1_776_327, 0.5: 1_118_048}),
    (ShuffleNetV2, 3, {0.0: 1_255_754, 0.3: 879_497, 0.35: 815_901, 0.6: 504_230, 0.9: 130_606}),
    (ShuffleNetV2, 1, {0.35: 815_631, 0.7: 379_045}),
    (AlexNet, 3, {0.5: 28_517_728}),
    (AlexNet, 1, {0.5: 28_509_984}),  # above 0.5 the original keeps ties: 6 weights more at 0.9
]


@pytest.mark.parametrize(("network", "channels", "counts"), PAPER)
def test_the_papers_counts_to_the_unit(network: type, channels: int, counts: dict) -> None:
    weights: dict[str, Tensor] = {
        name: parameter
        for name, parameter in network(in_channels=channels).named_parameters()
        if "weight" in name
    }
    linear = {name: weight for name, weight in weights.items() if weight.dim() == 2}
    filters = [weight for weight in weights.values() if weight.dim() == 4]
    rest = sum(weight.numel() for weight in weights.values() if weight.dim() == 1)
    for share, expected in counts.items():
        kept = sum(int(mask.sum()) for mask in magnitude_masks(linear, share, "local").values())
        kept += sum(
            (len(weight) - pruned_count(len(weight), exact_share(share))) * weight[0].numel()
            for weight in filters
        )
        assert kept + rest == expected
