"""`python -m reproq_prefork`."""

from reproq_prefork.cli import main

if __name__ == "__main__":
    main()
