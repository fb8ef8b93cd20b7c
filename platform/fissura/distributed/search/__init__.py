"""Searches by Ray Tune: the searcher, its schedulers and callbacks, and the actors of trials."""
