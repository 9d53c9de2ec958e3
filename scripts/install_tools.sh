#!/bin/sh
# Installs the programs that tests use beside Python's and Rust's: promtool, of Debian's package prometheus.
set -eu

command -v promtool >/dev/null && exit 0
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "error: promtool is missing: install it, on Debian as root: apt-get install prometheus" >&2
    exit 1
fi
# The package brings a server with it, which is not to be started. A machine's own rule about that stays.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update --quiet --quiet
apt-get install --quiet --quiet --yes --no-install-recommends prometheus
