"""Training and prediction in plain PyTorch: the engine never asks where it runs."""
