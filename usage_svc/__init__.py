"""Metering, ledger and balances: what was used, what it cost, and who has funds left (docs/billing.md)."""
