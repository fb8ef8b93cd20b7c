"""Crack classification: features of a backbone, the classifiers on them, and their evaluation."""
