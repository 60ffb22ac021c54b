"""Run the command line as ``python -m lit_compress``, the same as ``lit-compress``."""

import sys

from lit_compress.cli import main

if __name__ == "__main__":
    sys.exit(main())
