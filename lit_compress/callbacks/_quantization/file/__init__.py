"""Parts of a written file: its inputs, what it should return, its texts, its metric."""
