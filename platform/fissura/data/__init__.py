"""Data sets: their registry and files, their check, and how they are prepared and drawn into batches."""
