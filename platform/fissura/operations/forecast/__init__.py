"""What a search will take before it is begun: measured, simulated, and told with its spread."""
