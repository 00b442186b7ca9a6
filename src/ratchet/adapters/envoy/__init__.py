"""Envoy: our snapshot as its resources, and its own words about what it applied."""
