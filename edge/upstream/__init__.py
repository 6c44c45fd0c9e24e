"""Asking a model server: the connection pool and the call, and the pure reading of what comes back."""
