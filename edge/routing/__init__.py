"""Where a request can go: the catalog in memory, and the order in which deployments are tried."""
