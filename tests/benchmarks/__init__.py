"""Benchmarks of this package and of other stores; run by hand with ``python -m tests.benchmarks``."""
