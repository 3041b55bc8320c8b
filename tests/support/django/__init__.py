"""What the tests of the Django wing share: databases, rows, a browser."""
