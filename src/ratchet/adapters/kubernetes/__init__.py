"""Workers as Kubernetes Jobs: what we ask for, what became of it, and the API server."""
