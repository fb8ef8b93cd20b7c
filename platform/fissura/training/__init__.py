"""What the trainings of both tasks share. It never asks where it runs."""
