"""Print the speed of the int8 file, against float networks and the int8 files of other tools.

::

    python benchmarks/int8_latency.py [--networks mobilenet_v2] [--batches 1 32] [--threads 1 2]

Needs the ``peers`` extra; ExecuTorch and LiteRT are among the contenders where the extras
``executorch`` and ``litert`` are installed. Each contender runs in a process of its own, which
sleeps while the others run. Each round times all contenders in turn, in a new random order. Figures
are ratios within a round: the median, and its bootstrap interval at 95 %. ``fastest`` is the
fastest of our files against the fastest of the others. Weights are random, as they do not change
the time.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import warnings
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import other_runtimes

from lit_compress.artifact import OnnxModel, sqnr_db

if TYPE_CHECKING:  # the processes of the runtimes must not import torch
    from torch import Tensor, nn

#: The paper's networks, with the side length in pixels of its images.
SIZES = {"mobilenet_v2": 32, "shufflenet_v2": 32, "alexnet": 224}
CONTENDERS: tuple[str, ...] = (
    "eager fp32",
    "compiled fp32",
    "onnxruntime fp32",
    "onnxruntime quantize_static",
    "onnxruntime ours",
    "openvino fp32",
    "openvino nncf",
    "openvino ours",
    *(f"{runtime} {kind}" for runtime in other_runtimes.installed() for kind in ("own", "ours")),
)
#: What other tools make of the network.
PEERS = tuple(name for name in CONTENDERS if not name.endswith(" ours"))
#: The pairs to compare: the time of the second one is divided by that of the first.
CLAIMS = (
    ("onnxruntime ours", "eager fp32"),
    ("onnxruntime ours", "compiled fp32"),
    ("onnxruntime ours", "onnxruntime fp32"),
    ("onnxruntime ours", "onnxruntime quantize_static"),
    ("openvino ours", "eager fp32"),
    ("openvino ours", "openvino fp32"),
    ("openvino ours", "openvino nncf"),
    *((f"{name} ours", f"{name} own") for name in other_runtimes.installed()),
    *((f"{name} ours", "onnxruntime ours") for name in other_runtimes.installed()),
)
#: Seconds that a contender is timed for in each round.
SLICE = 0.01


def build(name: str) -> nn.Module:
    """Return a network with random weights, also in its batch norms, in eval mode."""
    import torch
    from torch import nn

    from lit_compress.modules import AlexNet, MobileNetV2, ShuffleNetV2

    torch.manual_seed(0)
    makers: dict[str, Callable[[], Any]] = {
        "mobilenet_v2": lambda: MobileNetV2(in_channels=1, channels_last=False),
        "shufflenet_v2": lambda: ShuffleNetV2(in_channels=1, channels_last=False),
        "alexnet": lambda: AlexNet(in_channels=1, image_size=224),
    }
    network: nn.Module = makers[name]().model
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
            nn.init.normal_(module.running_mean, 0, 0.1)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    return network.eval()


def prepare(name: str, folder: Path, batches: Sequence[int]) -> None:
    """Write the files that the contenders run, and print their quality and size."""
    import torch

    from lit_compress.export.onnx import write_onnx
    from lit_compress.quantization import quantize

    network, side = build(name), SIZES[name]
    images = torch.randn(64, 1, side, side, generator=torch.Generator().manual_seed(0))
    write_onnx(network, images, folder / "fp32.onnx")
    graph = quantize(network, images.chunk(4), images)
    write_onnx(graph, images, folder / "ours.onnx")
    for batch in batches:
        other_runtimes.prepare(network, images, graph, folder, batch)
    _quantize_static(folder, images)
    _nncf(folder, images)
    weights = sum(t.numel() * t.element_size() for t in network.state_dict().values())
    with torch.no_grad():
        expected = network(images).numpy()
    for file in ("ours.onnx", "static.onnx"):
        quality = sqnr_db(expected, OnnxModel(folder / file)(images))
        size = (folder / file).stat().st_size / weights
        print(f"  {file:12} {quality:5.1f} dB, {size:.3f}x of the fp32 state dict")


def _quantize_static(folder: Path, images: Tensor) -> None:
    """Write the int8 file of onnxruntime's own quantisation."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = iter(images.chunk(4))

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"input": batch.numpy()}

    quant_pre_process(str(folder / "fp32.onnx"), str(folder / "pre.onnx"))
    quantize_static(
        str(folder / "pre.onnx"),
        str(folder / "static.onnx"),
        Reader(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
    )


def _nncf(folder: Path, images: Tensor) -> None:
    """Write the int8 file of NNCF, OpenVINO's own quantisation."""
    import nncf
    import openvino

    model = openvino.Core().read_model(str(folder / "fp32.onnx"))
    data = nncf.Dataset([batch.numpy() for batch in images.chunk(len(images))])
    openvino.save_model(nncf.quantize(model, data), str(folder / "nncf.xml"))


def serve(
    pipe: Connection, contender: str, name: str, folder: str, batch: int, threads: int
) -> None:
    """Time one contender in this process, for a short slice at each request.

    Args:
        pipe: Sends the number of calls in a slice once it is ready. Then takes True for the next
            slice or False to end, and sends the seconds of one call.
        contender: One of ``CONTENDERS``.
        name: Name of the network.
        folder: Folder of the files.
        batch: Number of images in a batch.
        threads: Number of threads of the runtime.
    """
    warnings.simplefilter("ignore")
    shape = (batch, 1, SIZES[name], SIZES[name])
    images = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    run = _runner(contender, name, Path(folder), images, threads)
    for _ in range(5):
        run()
    start = perf_counter()
    run()
    count = max(1, round(SLICE / (perf_counter() - start)))
    pipe.send(count)
    while pipe.recv():
        run()  # fills the caches again, which the other contenders used
        start = perf_counter()
        for _ in range(count):
            run()
        pipe.send((perf_counter() - start) / count)


def _runner(
    contender: str, name: str, folder: Path, images: np.ndarray, threads: int
) -> Callable[[], Any]:
    """Return a function that runs a contender once."""
    runtime, _, kind = contender.partition(" ")
    if runtime == "onnxruntime":
        file = {"fp32": "fp32.onnx", "ours": "ours.onnx"}.get(kind, "static.onnx")
        model = OnnxModel(folder / file, threads)
        return lambda: model(images)
    if runtime == "openvino":
        file = {"fp32": "fp32.onnx", "ours": "ours.onnx"}.get(kind, "nncf.xml")
        return _openvino(folder / file, images, threads)
    if runtime in other_runtimes.PACKAGES:
        return other_runtimes.runner(runtime, kind, folder, images, threads)
    return _torch(name, images, threads, runtime == "compiled")


def _torch(name: str, images: np.ndarray, threads: int, compiled: bool) -> Callable[[], Any]:
    import torch

    torch.set_num_threads(threads)
    network: Any = build(name)
    if compiled:
        network = torch.compile(network)
    batch = torch.from_numpy(images)

    def run() -> Any:
        with torch.inference_mode():
            return network(batch)

    return run


def _openvino(path: Path, images: np.ndarray, threads: int) -> Callable[[], Any]:
    import openvino

    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": str(threads),
    }
    compiled = openvino.Core().compile_model(str(path), "CPU", options)
    request = compiled.create_infer_request()
    return lambda: np.array(request.infer([images])[0])


def timed(
    name: str,
    folder: Path,
    batch: int,
    threads: int,
    rounds: int,
    contenders: Sequence[str] = CONTENDERS,
) -> dict[str, np.ndarray]:
    """Return the seconds of one call of each contender, by round."""
    context, random = get_context("spawn"), np.random.default_rng(0)
    pipes: dict[str, Connection] = {}
    workers = []
    for contender in contenders:
        here, there = context.Pipe()
        arguments = (there, contender, name, str(folder), batch, threads)
        workers.append(context.Process(target=serve, args=arguments, daemon=True))
        workers[-1].start()
        here.recv()  # they start one at a time, not to disturb each other
        pipes[contender] = here
    times = {contender: np.empty(rounds) for contender in contenders}
    for index in range(rounds):
        for place in random.permutation(len(contenders)):
            pipe = pipes[contenders[place]]
            pipe.send(True)
            times[contenders[place]][index] = pipe.recv()
    for pipe in pipes.values():
        pipe.send(False)
    for worker in workers:
        worker.join()
    return times


def report(times: dict[str, np.ndarray]) -> None:
    """Print for each pair how many times faster the first one is, with the interval."""
    random = np.random.default_rng(0)
    for ours, other in CLAIMS:
        ratios = times[other] / times[ours]
        draws = ratios[random.integers(0, len(ratios), (2000, len(ratios)))]
        low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
        print(
            f"  {ours:17} {np.median(ratios):6.2f}x as fast as {other:28} [{low:.2f}, {high:.2f}]",
            flush=True,
        )


def report_fastest(times: dict[str, np.ndarray]) -> None:
    """Print the time of the fastest of our files over that of the fastest of all others."""
    medians = {name: float(np.median(times[name])) for name in CONTENDERS}
    ours = min((name for name in CONTENDERS if name not in PEERS), key=medians.__getitem__)
    peer = min(PEERS, key=medians.__getitem__)
    ratios, random = times[ours] / times[peer], np.random.default_rng(0)
    draws = ratios[random.integers(0, len(ratios), (2000, len(ratios)))]
    low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    print(
        f"  fastest: {ours}, {1000 * medians[ours]:.3f} ms, {np.median(ratios):.2f}x of the time "
        f"of {peer}, the best of the others [{low:.2f}, {high:.2f}]",
        flush=True,
    )


def main() -> None:
    """Print a table for each network, batch size and number of threads."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 32])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    for name in options.networks:
        with tempfile.TemporaryDirectory() as folder:
            print(f"{name}, {SIZES[name]} px", flush=True)
            prepare(name, Path(folder), options.batches)
            for threads in options.threads:
                for batch in options.batches:
                    print(f" batch {batch}, {threads} thread(s)", flush=True)
                    times = timed(name, Path(folder), batch, threads, options.rounds)
                    report(times)
                    report_fastest(times)


if __name__ == "__main__":
    main()
