"""Changes to the graph around calibration."""
