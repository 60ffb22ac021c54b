"""The user's own steps, run next to a fit."""
