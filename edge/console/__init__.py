"""The web page for customers: its files, its sign-in, and its way to the management API. It decides nothing."""
