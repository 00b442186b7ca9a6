"""What a person, a timer or a peer may ask for: read, decide, commit."""
