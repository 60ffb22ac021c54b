"""What the quantization callbacks share."""
