"""What the store must do, as plain Python, to be compared with the table after each step."""
