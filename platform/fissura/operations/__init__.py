"""Operation of a cluster: its check, fault drills, forecasts, notices of spot nodes."""
