"""Scoring folders of images: one row an image, resumable, whoever scores them; neither Ray nor PyTorch."""
