"""PostgreSQL and Redis run by ourselves, for the demo, for tests and for one small machine. No Django inside."""
