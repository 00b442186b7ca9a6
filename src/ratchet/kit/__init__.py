"""Small things that would fit in any program.  Knows nothing of Ratchet."""
