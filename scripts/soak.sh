#!/usr/bin/env bash
# The slow suites, one after the other, until MINUTES are over (default 30). Each round uses new random cases.
set -euo pipefail
minutes=${1:-30}
end=$((SECONDS + minutes * 60))
round=0
while [ $SECONDS -lt $end ]; do
    round=$((round + 1))
    echo "soak: round $round"
    PROPTEST_CASES=${PROPTEST_CASES:-20000} cargo nextest run --workspace --release --no-fail-fast --retries 0
done
echo "soak: $round rounds in $((SECONDS / 60)) minutes"
