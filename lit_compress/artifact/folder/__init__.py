"""The files of an artefact: their names, their SHA-256, the card, and what opens each."""
