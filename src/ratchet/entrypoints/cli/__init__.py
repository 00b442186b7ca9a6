"""The command line: a thin client of the HTTP API, and the starters of our programs."""
