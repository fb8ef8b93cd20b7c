"""Classification: the class of a whole image."""
