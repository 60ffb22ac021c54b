"""Print the bytes of packed networks against the entropy of their weights.

    python experiments/packed_sizes.py [--networks alexnet] [--zeros 0.5 0.9]

Twelve networks with random weights (normal; batch norms uniform), not trained, a share of each
weight tensor zeroed by magnitude: as fp32 ONNX file, as int8 file of this package's quantiser, and
as int8 file with 4 bits per weight. The bound is the order-0 entropy: of int8 weights (and of codes
of 4 bits) by tensor, of float weights by tensor the entropy of their bytes, or of sign and exponent
plus the 23 bits of the mantissa if that is less; of the vectors (biases, scales) of all tensors of
a type together. It is computed from the tensors that the onnx package reads, without the code that
packs.

Fails if a packed file above 1 MB is more than 1.10 times its bound, graph included, or a smaller
one without its graph more than 1.25 times.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn
from torchvision import models

from lit_compress.export.onnx import write_onnx
from lit_compress.modules import AlexNet, MobileNetV2, ShuffleNetV2
from lit_compress.packed.four_bits import round_onnx
from lit_compress.packed.layout import parse
from lit_compress.packed.levels import to_codes
from lit_compress.packed.model import pack_onnx, unpack
from lit_compress.quantization import quantize

#: Side length in pixels of the images.
SIDE = 64
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "AlexNet": lambda: AlexNet(in_channels=3, image_size=SIDE).model,
    "MobileNetV2": lambda: MobileNetV2(in_channels=3, channels_last=False).model,
    "ShuffleNetV2": lambda: ShuffleNetV2(in_channels=3, channels_last=False).model,
    **{
        name: lambda name=name: models.get_model(name, num_classes=10)  # type: ignore[misc]
        for name in (
            "resnet18",
            "resnet34",
            "squeezenet1_1",
            "mobilenet_v3_small",
            "efficientnet_b0",
            "densenet121",
            "mnasnet0_5",
            "regnet_x_400mf",
            "shufflenet_v2_x0_5",
        )
    },
}
#: By name of a tensor its codes of 4 bits, and the step of each channel.
Codes = dict[str, tuple[np.ndarray, np.ndarray]]
#: Smaller tensors stay in the graph, so they are in neither of the two sums.
SMALLEST = 48
#: Limits of the ratio, above and below this number of bytes.
LARGE, LIMIT, SMALL_LIMIT = 1_000_000, 1.10, 1.25


def build(name: str, zeros: float) -> nn.Module:
    """Return a network with random weights, of which a share is zero."""
    torch.manual_seed(0)
    network = NETWORKS[name]().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
    for weight in (weight for weight in network.parameters() if weight.dim() > 1):
        nn.init.normal_(weight, 0, float(weight.detach().std()))
        size = weight.detach().abs().flatten()
        if count := int(zeros * len(size)):
            weight.data[weight.abs() <= size.kthvalue(count).values] = 0
    return network


def files(name: str, zeros: float) -> Iterator[tuple[str, bytes, bytes, Codes]]:
    """Yield kind, ONNX file and packed file, and the codes and steps of weights of 4 bits."""
    network = build(name, zeros)
    images = torch.rand(8, 3, SIDE, SIDE)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder, "model.onnx")
        write_onnx(network, images, path)
        yield "fp32", path.read_bytes(), pack_onnx(path.read_bytes()), {}
        write_onnx(quantize(network, [images], images), images, path)
        int8 = path.read_bytes()
    yield "int8", int8, pack_onnx(int8), {}
    rounded = round_onnx(int8)
    before = {tensor.name: tensor for tensor in onnx.load_model_from_string(int8).graph.initializer}
    codes = {
        tensor.name: to_codes(numpy_helper.to_array(before[tensor.name]).ravel(), tensor.channels)
        for tensor in parse(rounded.packed, name).tensors
        if tensor.channels
    }
    yield "4 bits", rounded.onnx, rounded.packed, codes


def entropy(symbols: np.ndarray) -> float:
    """Return the order-0 entropy of symbols of one byte, or of 9 bits, in bits."""
    if symbols.dtype.itemsize == 1:
        symbols = symbols.view(np.uint8)
    counts = np.bincount(symbols.ravel())
    counts = counts[counts > 0]
    return float(-(counts * np.log2(counts / counts.sum())).sum())


def float_bits(values: np.ndarray) -> float:
    """Return the entropy of floats: where zeros are, sign and exponent, and raw mantissas."""
    bits = values.view(np.uint32).ravel()
    present = bits[bits != 0]
    planes = byte_bits(present)
    return entropy(bits != 0) + min(planes, entropy(present >> 23) + 23 * len(present))


def byte_bits(words: np.ndarray) -> float:
    """Return the entropy of the first bytes of all words, of their second bytes, and so on."""
    planes = words.view(np.uint8).reshape(len(words), -1)
    return sum(entropy(np.ascontiguousarray(planes[:, byte])) for byte in range(planes.shape[1]))


def bound_bytes(data: bytes, codes: Codes) -> float:
    """Return the entropy of the tensors of an ONNX file in bytes."""
    total = 0.0
    vectors: dict[str, list[np.ndarray]] = {}
    for initializer in onnx.load_model_from_string(data).graph.initializer:
        values = np.ascontiguousarray(numpy_helper.to_array(initializer))
        if values.nbytes < SMALLEST:
            continue
        if values.ndim < 2:
            vectors.setdefault(values.dtype.name, []).append(values.ravel())
        elif initializer.name in codes:
            total += entropy(codes[initializer.name][0]) + 16 * len(codes[initializer.name][1])
        else:
            total += float_bits(values) if values.dtype == np.float32 else entropy(values)
    for name, parts in vectors.items():
        joined = np.concatenate(parts)
        total += float_bits(joined) if name == "float32" else byte_bits(joined)
    return total / 8


def main() -> int:
    """Print a row for each file; return 1 if one is above its limit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--zeros", nargs="+", type=float, default=[0.5, 0.9, 0.95])
    given = parser.parse_args()
    torch.set_num_threads(1)
    print("| network | zeros | file | ONNX bytes | packed | of them graph | bound | ratio |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    over = 0
    for name in given.networks:
        for zeros in given.zeros:
            for kind, data, packed, codes in files(name, zeros):
                if unpack(packed) != data:
                    raise ValueError(f"{name} does not come back")
                graph, bound = parse(packed, name).head, bound_bytes(data, codes)
                large = len(packed) > LARGE
                ratio = (len(packed) if large else len(packed) - graph) / bound
                failed = ratio > (LIMIT if large else SMALL_LIMIT)
                over += failed
                print(
                    f"| {name} | {zeros:.0%} | {kind} | {len(data):,} | {len(packed):,} | "
                    f"{graph:,} | {bound:,.0f} | {ratio:.3f}{' FAILED' if failed else ''} |",
                    flush=True,
                )
    print(f"\n{over} above the limit")
    return int(over > 0)


if __name__ == "__main__":
    sys.exit(main())
