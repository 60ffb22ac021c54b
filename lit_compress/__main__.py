"""``python -m lit_compress`` is ``lit-compress``."""

import sys

from lit_compress.cli import main

if __name__ == "__main__":
    sys.exit(main())
