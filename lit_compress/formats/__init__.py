"""Write a quantised network in the formats of other runtimes than ONNX Runtime.

All exporters take the graph that the ONNX file is written from, so all files have the same scales
and zero points. Each package is imported when it is used.
"""

from lit_compress.formats.exporter import Exporter, Written
from lit_compress.formats.exporters import check_installed, exporter

__all__ = ["Exporter", "Written", "check_installed", "exporter"]
