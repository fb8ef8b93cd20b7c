"""What keeps a cluster at work: its check, drills of faults, forecasts, notices of spot nodes."""
