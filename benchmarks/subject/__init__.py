"""What is measured of us: an installation with default settings, its tasks, and its table."""
