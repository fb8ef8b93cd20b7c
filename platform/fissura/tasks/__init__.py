"""What the rooms that serve every task ask of each: its results, its rows, its answers. See `core.tasks`."""
