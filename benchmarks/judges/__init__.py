"""Canary judges behind one interface, for `benchmarks/canary.py`."""
