"""`python -m catalog_svc`: the process."""

import sys

from catalog_svc import migrations
from catalog_svc.service import open_servicers
from catalog_svc.settings import CatalogSettings
from chassis.service import run_service

if __name__ == "__main__":
    sys.exit(run_service("catalog_svc", CatalogSettings, migrations, open_servicers))
