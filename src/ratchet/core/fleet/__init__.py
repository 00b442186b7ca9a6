"""Machines that several projects share: pools, claims, and who gets a slot next."""
