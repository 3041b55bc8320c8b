"""What a host owes the database: leases renewed, dead workers reset, new runs announced.

May import `unix`, `store` and what is below them.
"""
