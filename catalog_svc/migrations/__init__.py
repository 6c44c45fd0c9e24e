"""The history of catalog_svc's schema."""
