"""Rehearsals: miniature checkpoints of real families, and checks that each family answers as its plain model does."""
