"""What this engine does on this machine: `python -m benchmarks` (`make bench`). They measure; tests do not."""
