"""`python -m usage_svc`: metering, ledger and balances, until told to stop."""

import sys

from chassis.service import run_service
from usage_svc import migrations
from usage_svc.servicer import open_servicers
from usage_svc.settings import UsageSettings


def main() -> int:
    """Returns the exit status."""
    return run_service("usage_svc", UsageSettings, migrations, open_servicers)


if __name__ == "__main__":
    sys.exit(main())
