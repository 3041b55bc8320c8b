"""The parts put together: where a host is started, and the only place where user code enters.

May import every folder but `cli` and `demo`.
"""
