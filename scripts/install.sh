#!/bin/sh
# Make a virtual environment and install virtex with its development tools into it.
# Usage: install.sh DIRECTORY    (PYTHON names the interpreter; uv is used where it is there)
set -eu
directory=$1
python=${PYTHON:-python3}

if ! "$python" -c 'import sys; raise SystemExit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'; then
    echo "virtex needs Python 3.11, 3.12 or 3.13; $("$python" --version) is $python." >&2
    echo "Name another one: make PYTHON=python3.12 …" >&2
    exit 1
fi
echo "Installing virtex into $directory; torch is a few gigabytes, which takes minutes."
if command -v uv >/dev/null 2>&1; then
    uv venv --quiet --allow-existing --python "$python" "$directory"
    VIRTUAL_ENV="$directory" uv pip install --editable '.[dev]'
else
    "$python" -m venv "$directory"
    "$directory/bin/python" -m pip install --disable-pip-version-check --editable '.[dev]'
fi
