#!/bin/sh
# Says in one line what is missing when PYTHON (first argument) cannot set up a virtual environment.
python="$1"
remedy="name another one with: make PYTHON=python3.11 ..."

if ! command -v "$python" >/dev/null 2>&1; then
    echo "$python was not found: install Python 3.10 to 3.13 (Debian, Ubuntu: apt install python3 python3-venv), or $remedy" >&2
    exit 1
fi
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
case "$version" in
    3.10 | 3.11 | 3.12 | 3.13) ;;
    *)
        echo "$python is Python $version, densematch needs 3.10 to 3.13: install one (Debian, Ubuntu: apt install python3.11 python3.11-venv), or $remedy" >&2
        exit 1
        ;;
esac
if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
    echo "$python has no venv module: install it (Debian, Ubuntu: apt install python$version-venv), or $remedy" >&2
    exit 1
fi
