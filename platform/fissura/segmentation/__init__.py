"""Crack segmentation: recipes, trainings, probability maps and their evaluation."""
