"""Runtimes of files other than ONNX: ExecuTorch, LiteRT, OpenVINO's own format.

Each is imported when a file is opened. Neither torch nor Lightning is imported here; ExecuTorch's
own Python interface imports torch.
"""

from lit_compress.runtimes.format_file import FORMATS, Format, FormatFile, Port

__all__ = ["FORMATS", "Format", "FormatFile", "Port"]
