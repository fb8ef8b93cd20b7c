"""What runs on Ray: searches, trainings over many workers, services, batches."""
