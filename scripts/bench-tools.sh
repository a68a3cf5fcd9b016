#!/usr/bin/env bash
# Fetches the peers that benchmarks run beside Muster, HyperQueue and Dask, into the tools' folder. All of it comes from
# PyPI, each file by its checksum. Does nothing where all of it is there.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python=${MUSTER_TOOLS:-$HOME/.cache/muster/tools}/bench-python
if ! cmp -s "$here/bench-requirements.txt" "$python/requirements.txt"; then
    echo "bench: fetching HyperQueue and Dask (once)"
    rm -rf "$python"
    python3 -m venv "$python"
    "$python/bin/pip" install --quiet --disable-pip-version-check --require-hashes --only-binary :all: \
        -r "$here/bench-requirements.txt"
    cp "$here/bench-requirements.txt" "$python/requirements.txt"
fi
