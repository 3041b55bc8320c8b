"""One module a measurement. Each has NAME and `tables(bench)`."""
