"""Rules: what each layer loses, as a file says."""
