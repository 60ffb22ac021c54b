"""The torch calls of a run: what they pass on to each other, and runs from one of them."""
