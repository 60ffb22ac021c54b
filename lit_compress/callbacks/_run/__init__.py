"""Checks of the run that all callbacks share."""
