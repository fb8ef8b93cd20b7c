"""Data sets: registry, files and check, and how they are prepared and batched."""
