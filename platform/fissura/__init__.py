"""fissura: find, train, compare and serve the best crack model for your own images."""
