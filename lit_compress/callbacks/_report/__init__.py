"""What the report callback is made of."""
