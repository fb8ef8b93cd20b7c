"""Trainings over many workers by Ray Train, and the extraction of features."""
