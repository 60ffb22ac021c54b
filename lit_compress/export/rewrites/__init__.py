"""Changes of a captured graph before it is written; what it computes stays the same."""
