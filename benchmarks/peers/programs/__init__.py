"""What runs in the peers' own environments: none of it is imported here, nor checked by mypy."""
