#!/usr/bin/env bash
# The slow suites, until MINUTES are over (default 30): random cases of the properties and seeds of simulated clusters that
# no run before has had, for a quarter of the time each, then real faults in their long form (SHORT=1: in their short one),
# one scenario after the other, again and again. Prints a table of the faults at the end, and fails if anything failed.
#   scripts/soak.sh [MINUTES] [all|properties|simulation|faults] [part of the scenarios' names]
set -euo pipefail
minutes=${1:-30}
part=${2:-all}
only=${3:-}
long=1
[ -z "${SHORT:-}" ] || long=0
start=$SECONDS
end=$((start + minutes * 60))
failed=0
target=${CARGO_TARGET_DIR:-$PWD/target}
mkdir -p "$target/soak"
figures=$target/soak/figures.tsv
results=$target/soak/results.tsv
: > "$figures"
: > "$results"

properties() { # until when
    local round=0
    while [ $SECONDS -lt "$1" ]; do
        round=$((round + 1))
        echo "soak: properties, round $round"
        # The faults need a debug build: a release has no points to break it at.
        PROPTEST_CASES=${PROPTEST_CASES:-20000} cargo nextest run --workspace --release --no-fail-fast --retries 0 \
            -E 'not binary(faults) and not binary(simulation)' || failed=1
    done
}

simulation() { # until when
    local seeds=500 first=$(($(date +%s) * 1000))
    while [ $SECONDS -lt "$1" ]; do
        echo "soak: simulated clusters, seeds from $first on"
        SIM_SEEDS=$seeds SIM_FIRST_SEED=$first \
            cargo test --quiet -p muster-integration --test simulation -- --nocapture random_clusters || failed=1
        first=$((first + seeds))
    done
}

# The binary of the commit in integration/upgrade-from, built with the dependencies that are built already.
earlier_version() {
    local commit tree=$target/soak/upgrade-from
    commit=$(cat integration/upgrade-from)
    if ! git cat-file -e "$commit^{commit}" 2>/dev/null; then
        echo "soak: SKIPPED: the rolling upgrade: commit $commit is not in this clone's history" >&2
        [ -z "${CI:-}" ]
        return
    fi
    if [ "$(cat "$tree.commit" 2>/dev/null)" != "$commit" ]; then
        git worktree remove --force "$tree" 2>/dev/null || true
        rm -rf "$tree"
        git worktree prune
        git worktree add --quiet --detach "$tree" "$commit"
        cargo build --quiet --manifest-path "$tree/Cargo.toml" --target-dir "$target" -p muster-cli
        cp "$target/debug/muster" "$target/soak/muster-earlier"
        git worktree remove --force "$tree"
        echo "$commit" > "$tree.commit"
    fi
    export MUSTER_UPGRADE_FROM=$target/soak/muster-earlier
}

faults() { # until when
    earlier_version || failed=1
    cargo build --quiet -p muster-cli
    local binary scenarios scenario log took
    binary=$(cargo test --quiet -p muster-integration --test faults --no-run --message-format json 2>/dev/null |
        sed -n 's/.*"executable":"\([^"]*\/faults-[^"]*\)".*/\1/p' | tail -n 1)
    mapfile -t scenarios < <("$binary" --list --format terse | sed -n 's/: test$//p' | grep -F -- "$only")
    while :; do
        for scenario in "${scenarios[@]}"; do
            if [ -z "${MUSTER_UPGRADE_FROM:-}" ] && [[ $scenario == upgrade::* ]]; then
                continue
            fi
            [ $SECONDS -lt "$1" ] || return 0
            took=$SECONDS
            log=$target/soak/${scenario//::/-}.log
            # A process group of its own is ended as a whole if it hangs.
            if MUSTER_SOAK=$long MUSTER_FAULT_FIGURES=$figures timeout --kill-after=10 1800 \
                "$binary" --exact "$scenario" --nocapture > "$log" 2>&1; then
                printf '%s\tok\n' "$scenario" >> "$results"
                echo "soak: $scenario: ok, $((SECONDS - took)) s"
            else
                printf '%s\tFAILED\n' "$scenario" >> "$results"
                cp "$log" "$log.failed"
                echo "soak: $scenario: FAILED, see $log.failed"
                failed=1
            fi
        done
    done
}

# One line for each scenario: how often it ran, and what was seen. Times are milliseconds.
table() {
    awk -F '\t' '
        FNR == NR { runs[$1]++; if ($2 != "ok") bad[$1]++; next }
        $2 != "-" { if (!($1 in medians)) medians[$1] = $2; else medians[$1] = medians[$1] " " $2
                    if ($3 + 0 > worst[$1]) worst[$1] = $3 }
        { again[$1] += $4; lost[$1] += $5; twice[$1] += $6 }
        END {
            print "| fault | runs | failed | takeover: median | worst | run more than once | lost | accepted twice |"
            print "|---|--:|--:|--:|--:|--:|--:|--:|"
            for (name in runs) {
                count = split(medians[name], sorted, " ")
                for (i = 2; i <= count; i++)
                    for (j = i; j > 1 && sorted[j - 1] + 0 > sorted[j] + 0; j--) {
                        swap = sorted[j]; sorted[j] = sorted[j - 1]; sorted[j - 1] = swap
                    }
                median = count ? sorted[int((count + 1) / 2)] " ms" : ""
                printf "| %s | %d | %d | %s | %s | %d | %d | %d |\n", name, runs[name], bad[name], median,
                    count ? worst[name] " ms" : "", again[name], lost[name], twice[name] | "sort"
            }
        }' "$results" "$figures"
}

case $part in
    properties) properties "$end" ;;
    simulation) simulation "$end" ;;
    faults) faults "$end" ;;
    all)
        properties $((start + minutes * 15))
        simulation $((start + minutes * 30))
        faults "$end"
        ;;
    *) echo "soak: '$part' is no part; all, properties, simulation or faults" >&2 && exit 2 ;;
esac
[ ! -s "$results" ] || table | tee "$target/soak/table.md"
echo "soak: $(((SECONDS - start) / 60)) minutes"
exit $failed
