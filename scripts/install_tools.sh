#!/bin/sh
# Installs the programs that tests use, apart from Python's and Rust's, from Debian: servers of queues, promtool, a browser,
# valgrind. Arguments name more of them, as program:package.
set -eu

missing=
for tool in promtool:prometheus redis-server:redis-server valgrind:valgrind java:default-jre-headless mvn:maven \
    chromium:chromium "$@"; do
    command -v "${tool%%:*}" >/dev/null || missing="$missing ${tool#*:}"
done
# Many users do not have these folders on their path.
[ -x /usr/sbin/rabbitmq-server ] || missing="$missing rabbitmq-server"
[ -x /usr/sbin/pgbouncer ] || missing="$missing pgbouncer"
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="$missing postgresql"
[ -n "$missing" ] || exit 0
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "error: install what is missing, on Debian as root: apt-get install$missing" >&2
    exit 1
fi
# Most of the packages bring a server that must not be started. A machine's own rule about that stays.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update --quiet --quiet
# shellcheck disable=SC2086 # they are words
apt-get install --quiet --quiet --yes --no-install-recommends $missing
