"""The verb ``benchmark``: time, throughput and memory of an artefact, ONNX file or checkpoint.

Files need numpy and a runtime alone, so it runs on the machine they are deployed to.
"""

from lit_compress.benchmark.measured import Measured
from lit_compress.benchmark.options import Options
from lit_compress.benchmark.result import Benchmark
from lit_compress.benchmark.run import run_benchmark

__all__ = ["Benchmark", "Measured", "Options", "run_benchmark"]
