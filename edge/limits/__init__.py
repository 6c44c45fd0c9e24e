"""What a key may ask for, and an address: shares of keys' rates out of usage_svc, counts of connections and failures.

`limiter.Limiter` is the face for keys, `addresses` that for addresses; `share` and chassis' `gcra` are the rules under
them (docs/limits.md).
"""
