"""Our tables in PostgreSQL: the truth of the control plane.

SQL stands in `queries/*.sql`, one named statement each; the schema in `migrations/`.
"""
