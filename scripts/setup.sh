#!/usr/bin/env bash
# Installs what building and testing need beside Rust: Debian's packages, and two cargo tools. Does nothing where all
# of it is there.
#   scripts/setup.sh          all
#   scripts/setup.sh build    only what `make demo` needs
set -euo pipefail
what=${1:-all}
tools=${MUSTER_TOOLS:-$HOME/.cache/muster/tools}

need() { # command package...
    command -v "$1" >/dev/null 2>&1 || missing+=("${@:2}")
}
missing=()
need protoc protobuf-compiler                               # etcd-client's build
[ -e /usr/include/google/protobuf/empty.proto ] || missing+=(libprotobuf-dev)
need cc build-essential                                     # zstd's and blake3's C parts
if [ "$what" = all ]; then
    need etcd etcd-server                                   # tests start their own
    need etcdctl etcd-client
    need ip iproute2                                        # the fault tests' own networks
    need nft nftables
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3 python3-venv) # checks the chart
fi
if [ ${#missing[@]} -gt 0 ]; then
    echo "setup: installing ${missing[*]}"
    sudo=""
    [ "$(id -u)" -eq 0 ] || sudo=sudo
    $sudo apt-get update -qq
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
command -v cargo >/dev/null 2>&1 || { echo "setup: no cargo: install Rust from https://rustup.rs first" >&2; exit 1; }

tool() { # crate version
    [ "$what" = all ] || return 0
    PATH="$tools/bin:$PATH" command -v "$1" >/dev/null 2>&1 && return 0
    echo "setup: building $1 $2 (once)"
    CARGO_TARGET_DIR="$tools/target" cargo install --quiet --locked --root "$tools" --version "$2" "$1"
    rm -rf "$tools/target"
}
tool cargo-nextest 0.9.143
tool cargo-deny 0.20.2
[ "$what" != all ] || "$(dirname "$0")/helm-tools.sh"
