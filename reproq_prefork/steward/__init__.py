"""The duties of a host to the database: renew leases, reset the runs of dead workers, wake workers for new runs.

May import `unix`, `store` and what is below them.
"""
