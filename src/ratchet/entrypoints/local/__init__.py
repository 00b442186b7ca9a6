"""The embedded stack: real PostgreSQL, Valkey and Envoy from wheels, and our own programs, as
children of one supervisor.  One state directory holds everything."""
