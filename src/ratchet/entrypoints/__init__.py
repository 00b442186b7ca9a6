"""Programs: how the outside reaches us."""
