"""The peers: who they are, how they are installed and run, and what each is measured by."""
