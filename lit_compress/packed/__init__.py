"""Packed files: arrays with many zeros, and ONNX files of them, that take little space on disk.

- :mod:`~lit_compress.packed.model` packs and reads an ONNX file, or arrays by name.
- :mod:`~lit_compress.packed.folder` packs an artefact; :func:`lit_compress.pack` is its function.

Reading needs numpy alone. ``docs/packed.md`` describes the bytes of the file.
"""
