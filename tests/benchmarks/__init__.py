"""How long things take, here and in other stores; run by hand with ``python -m tests.benchmarks``."""
