"""What the tests and their tools share."""
