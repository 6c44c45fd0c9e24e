#!/bin/sh
# Installs Debian's Chromium without windows, for the tests of the console. Where that cannot be done, says so and
# succeeds: those tests are then skipped, with that reason.
set -eu
for name in chromium-headless-shell chromium chromium-browser google-chrome; do
    if command -v "$name" > /dev/null; then exit 0; fi
done
if ! command -v apt-get > /dev/null || [ "$(id -u)" -ne 0 ]; then
    echo "Chromium is not here, and only root can install it (apt-get install chromium-headless-shell): the console's tests will be skipped"
    exit 0
fi
echo "==> installing Chromium for the console's tests (about a minute, once)"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium-headless-shell; } > "$log" 2>&1; then
    tail -5 "$log"
    echo "Chromium cannot be installed here (above): the console's tests will be skipped"
fi
