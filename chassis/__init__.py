"""What any service needs in order to run, and nothing that knows which service it is.

Charter: no noun of our domain appears in here (held by tests/unit/test_architecture.py); a thing moves in only when two
processes already have it; nothing is called utils, helpers or common.
"""
