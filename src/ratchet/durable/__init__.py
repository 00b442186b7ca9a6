"""Run a flow so that a crash loses nothing.  The only home of DBOS."""
