"""When to work, on what kind of machine, and where: cheap while there is time, never late."""
