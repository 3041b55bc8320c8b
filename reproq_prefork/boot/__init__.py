"""Puts the parts together: here a host starts, and only here user code enters.

May import every folder but `cli` and `demo`.
"""
