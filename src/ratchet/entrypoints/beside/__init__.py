"""What the agent does for the Envoy beside it, on routes that ask for it."""
