"""Ratchet: continuous delivery for fine-tuned LLMs, on your own machines."""

__version__ = "0.1.0"
