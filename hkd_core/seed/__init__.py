"""SEED: identify, isolate, purge, evolve."""
