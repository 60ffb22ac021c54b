"""Reading files that anyone may have made, and writing files and folders whole or not at all."""

from lit_compress.files.whole import whole_file, write_whole

__all__ = ["whole_file", "write_whole"]
