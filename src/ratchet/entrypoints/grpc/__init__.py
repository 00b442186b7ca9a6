"""The inner wire: access records from Envoy, and the desk for workers."""
