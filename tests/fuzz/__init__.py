"""Bytes from elsewhere, made up by the million."""
