"""What every layer stands on: specs, errors, files, seeds. It knows nothing of images or models."""
