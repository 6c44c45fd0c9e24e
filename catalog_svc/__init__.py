"""Models, prices and upstream deployments: one document applied by operators, one numbered snapshot for everybody.

Owns the catalog document, price versions and snapshots. Does not own credentials (it knows only their names) and does
not know which deployments are up. `DEFAULT_CATALOG` is the document that an operator starts from.
"""

from pathlib import Path

DEFAULT_CATALOG = Path(__file__).with_name("default_catalog.yaml")
