"""Classifiers on features: whitening, RBF support vector machines, forests, their search and compression."""
