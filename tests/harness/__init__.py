"""What tests stand on: a scripted upstream, a real PostgreSQL, and the one place where a test waits."""
