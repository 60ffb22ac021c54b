"""What the last validation of a run has measured, where a further one would measure the same."""
