"""Leases at scale, in simulated time: real meters, the real usage_svc and a real SQLite, without waiting."""
