"""usage_svc's schema history."""
