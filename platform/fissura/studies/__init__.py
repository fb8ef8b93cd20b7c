"""A study on disk: its plan, its database, its results, and their repair."""
