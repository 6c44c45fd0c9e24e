#!/bin/sh
# Puts promtool, out of Debian's package prometheus, into the folder $1. Nothing is installed, so no server is started.
# Where that cannot be had, says so and succeeds: the tests that need it are skipped, with that reason.
set -eu
if command -v promtool > /dev/null; then exit 0; fi
if ! command -v apt-get > /dev/null; then
    echo "promtool is neither here nor to be had from Debian: its checks of the alerts will be skipped"
    exit 0
fi
target=$(cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
chmod 755 "$work"  # apt fetches as a user of its own
if { apt-get download -qq prometheus || { apt-get update -qq && apt-get download -qq prometheus; }; } > log 2>&1 &&
    dpkg-deb -x prometheus_*.deb unpacked && install unpacked/usr/bin/promtool "$target/promtool"; then
    echo "promtool is in $target"
else
    cat log
    echo "promtool cannot be had from Debian here (above): its checks of the alerts will be skipped"
fi
