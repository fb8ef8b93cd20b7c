"""Segmentation: the cracks of an image, pixel by pixel."""
