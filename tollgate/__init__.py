"""The operator's command: starts everything on one machine, and administers it over gRPC."""
