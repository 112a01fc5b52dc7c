"""The benchmark: `python -m tests.bench` prints one table; pytest collects nothing of it."""
