"""The edge's side of the bill: holds out of leases, a spool on disk, and its way to usage_svc (docs/billing.md).

`meter.Meter` is the face; `lease` and `spool_format` are the pure rules under it.
"""
