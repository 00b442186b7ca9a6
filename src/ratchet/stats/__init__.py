"""Mathematics with references, and no product words.  Pure: no I/O, no clock, no chance."""
