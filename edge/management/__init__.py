"""What customers do with a management key: keys, balance, usage, requests. The edge translates; services decide."""
