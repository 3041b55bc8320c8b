"""Processes, control groups, clocks and networks of a test."""
