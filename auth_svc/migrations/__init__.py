"""The history of auth_svc's schema."""
