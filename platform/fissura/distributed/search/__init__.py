"""Searches by Ray Tune: the searcher, its schedulers and callbacks, and what runs a trial."""
