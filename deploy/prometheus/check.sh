#!/bin/sh
# Checks Prometheus' configuration and runs the rules' unit tests, where a promtool is found or can be had: one on the
# PATH, else Debian's, unpacked into build/prometheus without installing it. Without one it says so, and fails nothing:
# tests/deploy/test_rules.py still parses each query.
set -eu
cd "$(dirname "$0")/../.."
fetched=build/prometheus/usr/bin/promtool

fetch() {
    command -v apt-get >/dev/null && command -v dpkg >/dev/null || return 1
    mkdir -p build/prometheus/download
    (cd build/prometheus/download && timeout 120 apt-get download --quiet=2 prometheus) >/dev/null 2>&1 || return 1
    dpkg -x build/prometheus/download/prometheus_*.deb build/prometheus || return 1
    rm -r build/prometheus/download
}

promtool=$(command -v promtool || echo "$fetched")
if ! [ -x "$promtool" ] && ! fetch; then
    echo "No promtool here: the unit tests of deploy/prometheus/rules.yml were not run."
    exit 0
fi
"$promtool" check config --syntax-only deploy/prometheus/prometheus.yml
"$promtool" check rules deploy/prometheus/rules.yml
"$promtool" test rules deploy/prometheus/rules_test.yml deploy/prometheus/rules_long_test.yml
