"""Everything that holds Tollgate to its word: unit, service, stack and end-to-end tests, and the harness they share."""
