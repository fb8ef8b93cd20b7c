"""A cluster of real hosts on one machine, and what is asked of it."""
