"""Forecasts what a search will take: measured, simulated, and reported with its spread."""
