"""Exact under fire: the whole house under load while a seeded schedule breaks every part of it; see __main__."""
