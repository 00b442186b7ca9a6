"""Weights & Biases: `tracker.py` here, `program.py` where its client is installed."""
