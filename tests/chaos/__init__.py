"""The checker of a kill storm, and the history that it reads."""
