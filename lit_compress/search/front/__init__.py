"""The front of a search: its points, their table and configs, and its picture."""
