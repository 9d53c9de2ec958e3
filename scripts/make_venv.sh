#!/bin/sh
# Makes the virtual environment $1 with the first Python found that can: 3.11 or newer, with venv and ensurepip.
set -eu

found=
for python in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11 python}; do
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
    if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        found="$found $python is $version;"
    elif ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        found="$found $python ($version) has no ensurepip, on Debian install python$version-venv;"
    else
        echo "make: creating $1 with $python ($version)" >&2
        exec "$python" -m venv --clear "$1"
    fi
done
echo "error: no usable Python 3.11 or newer:${found:- none on PATH;} install one, or name it: make PYTHON=/path/to/python3" >&2
exit 1
