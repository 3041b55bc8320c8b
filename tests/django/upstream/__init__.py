"""Django's own tests of its tasks, run against our backend; see `tests/django/test_upstream.py`."""
