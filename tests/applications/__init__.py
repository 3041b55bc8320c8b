"""Applications as they are in production, with the real libraries, run by each executor."""
