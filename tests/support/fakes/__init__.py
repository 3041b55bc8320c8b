"""Made-up parts, for unit tests: no server, and no process unless a test forks one."""
