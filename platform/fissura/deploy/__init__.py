"""A finished run at work: opened as a model, exported as a folder that needs nothing of this project."""
