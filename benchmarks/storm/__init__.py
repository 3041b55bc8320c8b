"""The same kills of workers and masters for us and for peers, and what becomes of their tasks."""
