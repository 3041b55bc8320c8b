"""What this engine does on this machine, and its peers beside it: `python -m benchmarks`. Tests do not measure."""
