"""What the trainings of both tasks share, wherever they run."""
