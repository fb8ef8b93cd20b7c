"""Everything that runs on Ray: searches, trainings with several workers, services, batches."""
