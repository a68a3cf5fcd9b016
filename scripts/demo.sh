#!/bin/sh
# Counts the words of at least 50 MB of real text, in some thousands of files, with examples/wordcount.yaml on an
# embedded cluster, and compares the result with that of a plain shell pipeline over the same files.
#
# The text is the source code of this project's own dependencies, which everybody who builds it has.
#
#     scripts/demo.sh              (MUSTER=/path/to/muster takes a binary that is built already)
set -eu

BYTES_MIN=50000000
FILES_MIN=2000

here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/muster-demo-XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say() { printf '%s\n' "$*" >&2; }

# The development profile: here tasks do the work, in awk and sort, and the program around them is built in half the
# time. Its dependencies are optimised in that profile too.
if [ -z "${MUSTER:-}" ]; then
    say "Building muster ..."
    (cd "$here" && cargo build --quiet --locked -p muster-cli)
    target=$(cd "$here" && cargo metadata --format-version 1 --no-deps --locked \
        | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
    MUSTER=$target/debug/muster
fi

say "Gathering text ..."
mkdir "$work/text"
# Crates for other machines would have to be fetched first.
host=$(rustc -vV | sed -n "s/^host: //p")
(cd "$here" && cargo metadata --format-version 1 --locked --filter-platform "$host") > "$work/metadata"
# One crate a line. Its own sources are not the project's dependencies.
tr ',' '\n' < "$work/metadata" | sed -n 's/.*"manifest_path":"\(.*\)\/Cargo\.toml".*/\1/p' \
    | grep -v "^$here/" | LC_ALL=C sort -u > "$work/crates"
while read -r crate; do
    cp -R "$crate" "$work/text/"
    # Text only, by its ending.
    find "$work/text/$(basename "$crate")" \( -type f ! -name '*.rs' ! -name '*.md' ! -name '*.toml' -o -type l \) -delete
    # A tenth more than is needed: directories take some of what du counts.
    bytes=$(du -sb "$work/text" | cut -f 1)
    files=$(find "$work/text" -type f | wc -l)
    if [ "$bytes" -ge "$((BYTES_MIN + BYTES_MIN / 10))" ] && [ "$files" -ge "$FILES_MIN" ]; then
        break
    fi
done < "$work/crates"
# The true size, without what directories add to it.
bytes=$(find "$work/text" -type f -exec cat {} + | wc -c)
files=$(find "$work/text" -type f | wc -l)
say "$bytes bytes in $files files"
if [ "$bytes" -lt "$BYTES_MIN" ] || [ "$files" -lt "$FILES_MIN" ]; then
    say "error: that is too little text; run 'cargo fetch' in $here, so that all dependencies are there"
    exit 1
fi

say "Counting with muster ..."
began=$(date +%s)
# Embedded, whatever cluster this shell is set up for.
env -u MUSTER_SCHEDULERS -u MUSTER_DATA_DIR MUSTER_CONFIG=/dev/null \
    "$MUSTER" run "$here/examples/wordcount.yaml" --env TEXT_DIR="$work/text" --outputs "$work/result"
ended=$(date +%s)
say "muster took $((ended - began)) s"

say "Counting with a plain pipeline ..."
began=$(date +%s)
"$here/scripts/wordcount-reference.sh" "$work/text" > "$work/expected"
ended=$(date +%s)
say "the pipeline took $((ended - began)) s"

if diff -u "$work/expected" "$work/result/top/0/top.txt" >&2; then
    say "The results are equal."
else
    say "error: the results differ (expected above with -, muster's with +)"
    exit 1
fi
