"""Valkey or Redis: answers that may be lost, and reservations that the ledger makes good."""
