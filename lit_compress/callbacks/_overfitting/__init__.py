"""What the overfitting callback is made of."""
