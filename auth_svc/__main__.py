"""`python -m auth_svc`: the process."""

import sys

from auth_svc import migrations
from auth_svc.service import open_servicers
from auth_svc.settings import AuthSettings
from chassis.service import run_service

if __name__ == "__main__":
    sys.exit(run_service("auth_svc", AuthSettings, migrations, open_servicers))
