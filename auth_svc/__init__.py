"""Accounts and API keys: who may call, what a key allows, and how every edge learns that it no longer does.

Owns accounts, keys, and the numbered history of their changes. Does not own balances (usage_svc) or models
(catalog_svc): a key's allowed models are names to it. Does not guarantee that an edge has heard of a change: it offers
the change at once, and the edge bounds how long it trusts what it holds.
"""
