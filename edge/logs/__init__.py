"""Inputs and outputs of the keys that log them: captured, spooled beside the usage, sent to usage_svc.

Owns nothing that a bill needs: its files, its memory and its calls are its own and have bounds of their own, and what
does not fit is dropped and counted.
"""
