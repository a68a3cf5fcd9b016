#!/usr/bin/env bash
# The slow suites, for MINUTES (default 30) after everything is built: random cases of the properties and seeds of simulated clusters that
# no run before has had, for a quarter of the time each, then real faults in their long form (SHORT=1: in their short one),
# one scenario after the other, that with the fewest runs first. Fails if anything failed.
#   scripts/soak.sh [MINUTES] [all|properties|simulation|faults] [part of the scenarios' names]
# Every run of a scenario is added to docs/soak/runs.tsv (or to RECORDS), with its commit; so a long soak may be done in parts, and on
# several machines. At the end a table tells of all runs in the same form, how many of the last ones passed in a row, and what was seen.
# PROFILE is Cargo's profile for clusters (default: checked, which has the fault points and is fast enough for the long form).
set -euo pipefail
minutes=${1:-30}
part=${2:-all}
only=${3:-}
form=long
[ -z "${SHORT:-}" ] || form=short
profile=${PROFILE:-checked}
failed=0
target=${CARGO_TARGET_DIR:-$PWD/target}
records=${RECORDS:-$PWD/docs/soak}
mkdir -p "$target/soak" "$records"
# Time, commit, form, scenario, outcome, seconds; and form, kind, scenario, and what was seen.
runs=$records/runs.tsv
figures=$records/figures.tsv
touch "$runs" "$figures"
commit=$(git rev-parse --short HEAD)
git diff --quiet HEAD -- . ":!docs/soak" || commit+=+

properties() { # until when
    local round=0
    while [ $SECONDS -lt "$1" ]; do
        round=$((round + 1))
        echo "soak: properties, round $round"
        # The faults need a build with fault points, which a release has not.
        PROPTEST_CASES=${PROPTEST_CASES:-20000} cargo nextest run --workspace --release --no-fail-fast --retries 0 \
            -E 'not binary(faults) and not binary(simulation)' || failed=1
    done
}

simulation() { # until when
    local seeds=500 first=$(($(date +%s) * 1000))
    while [ $SECONDS -lt "$1" ]; do
        echo "soak: simulated clusters, seeds from $first on"
        SIM_SEEDS=$seeds SIM_FIRST_SEED=$first \
            cargo test --quiet --profile "$profile" -p muster-integration --test simulation -- --nocapture random_clusters || failed=1
        first=$((first + seeds))
    done
}

# The binary of the commit in integration/upgrade-from, built with the dependencies that are built already.
earlier_version() {
    local earlier tree=$target/soak/upgrade-from folder=$profile
    [ "$profile" != dev ] || folder=debug
    earlier=$(cat integration/upgrade-from)
    if ! git cat-file -e "$earlier^{commit}" 2>/dev/null; then
        echo "soak: SKIPPED: the rolling upgrade: commit $earlier is not in this clone's history" >&2
        [ -z "${CI:-}" ]
        return
    fi
    if [ "$(cat "$tree.commit" 2>/dev/null)" != "$earlier $profile" ]; then
        git worktree remove --force "$tree" 2>/dev/null || true
        rm -rf "$tree"
        git worktree prune
        git worktree add --quiet --detach "$tree" "$earlier"
        # A commit may be older than the profile.
        cargo build --quiet --manifest-path "$tree/Cargo.toml" --target-dir "$target" --profile "$profile" -p muster-cli \
            --config 'profile.checked.inherits="dev"' --config profile.checked.opt-level=2 \
            --config 'profile.checked.package."*".opt-level=2' --config 'profile.checked.package."*".debug=false'
        cp "$target/$folder/muster" "$target/soak/muster-earlier"
        git worktree remove --force "$tree"
        echo "$earlier $profile" > "$tree.commit"
    fi
    export MUSTER_UPGRADE_FROM=$target/soak/muster-earlier
}

# The scenario with the fewest runs in this form; of several, the first one.
next_scenario() {
    awk -F '\t' -v form="$form" '
        FILENAME == ARGV[1] { if ($3 == form) runs[$4]++; next }
        found == "" || runs[$1] + 0 < runs[found] + 0 { found = $1 }
        END { print found }' "$runs" <(printf '%s\n' "$@")
}

faults() { # until when
    local binary scenarios scenario log began outcome seen=$target/soak/seen.tsv long=0
    [ "$form" = short ] || long=1
    binary=$(cargo test --quiet --profile "$profile" -p muster-integration --test faults --no-run --message-format json 2>/dev/null |
        sed -n 's/.*"executable":"\([^"]*\/faults-[^"]*\)".*/\1/p' | tail -n 1)
    mapfile -t scenarios < <("$binary" --list --format terse | sed -n 's/: test$//p' | grep -F -- "$only" |
        if [ -n "${MUSTER_UPGRADE_FROM:-}" ]; then cat; else grep -v '^upgrade::'; fi)
    if [ ${#scenarios[@]} = 0 ]; then
        echo "soak: no scenario's name has '$only' in it" >&2
        failed=1
        return
    fi
    # One in any case, however late it is.
    while :; do
        scenario=$(next_scenario "${scenarios[@]}")
        began=$SECONDS
        log=$target/soak/${scenario//::/-}.log
        : > "$seen"
        outcome=ok
        # A process group of its own is ended as a whole if it hangs.
        MUSTER_SOAK=$long MUSTER_FAULT_FIGURES=$seen timeout --kill-after=10 1800 \
            "$binary" --exact "$scenario" --nocapture > "$log" 2>&1 || outcome=FAILED
        if grep '^SKIPPED' "$log"; then
            return
        fi
        printf '%s\t%s\t%s\t%s\t%s\t%d\n' "$(date -u +%FT%TZ)" "$commit" "$form" "$scenario" "$outcome" $((SECONDS - began)) >> "$runs"
        sed "s/^/$form\t/" "$seen" >> "$figures"
        if [ $outcome = ok ]; then
            echo "soak: $scenario: ok, $((SECONDS - began)) s"
        else
            cp "$log" "$log.failed"
            echo "soak: $scenario: FAILED, see $log.failed"
            failed=1
        fi
        [ $SECONDS -lt "$1" ] || break
    done
}

# One line for each scenario: how often it ran, how many of the last runs passed in a row and since which commit, and what
# was seen. Times of takeovers are milliseconds.
table() {
    awk -F '\t' -v form="$form" '
        FILENAME == ARGV[1] {
            if ($3 != form) next
            runs[$4]++
            if ($5 == "ok") { if (!row[$4]++) since[$4] = $2 } else { bad[$4]++; row[$4] = 0; since[$4] = "" }
            next
        }
        $1 != form { next }
        $2 == "remark" { said[$3] = $4; next }
        $4 != "-" { if (!($3 in medians)) medians[$3] = $4; else medians[$3] = medians[$3] " " $4
                    if ($5 + 0 > worst[$3]) worst[$3] = $5 }
        { again[$3] += $6; lost[$3] += $7; twice[$3] += $8 }
        END {
            print "| fault (" form " form) | runs | failed | passed in a row | since | takeover: median | worst | run more than once | lost | accepted twice |"
            print "|---|--:|--:|--:|---|--:|--:|--:|--:|--:|"
            for (name in runs) {
                count = split(medians[name], sorted, " ")
                for (i = 2; i <= count; i++)
                    for (j = i; j > 1 && sorted[j - 1] + 0 > sorted[j] + 0; j--) {
                        swap = sorted[j]; sorted[j] = sorted[j - 1]; sorted[j - 1] = swap
                    }
                median = count ? sorted[int((count + 1) / 2)] " ms" : ""
                printf "| %s | %d | %d | %d | %s | %s | %s | %d | %d | %d |\n", name, runs[name], bad[name], row[name], since[name],
                    median, count ? worst[name] " ms" : "", again[name], lost[name], twice[name] | "sort"
            }
            close("sort")
            for (name in said) printf "\n- %s: %s\n", name, said[name]
        }' "$runs" "$figures"
}

build() { # which part
    case $1 in
        properties) cargo nextest run --workspace --release --no-run ;;
        simulation) cargo test --quiet --profile "$profile" -p muster-integration --test simulation --no-run ;;
        faults)
            earlier_version || failed=1
            cargo build --quiet --profile "$profile" -p muster-cli
            cargo test --quiet --profile "$profile" -p muster-integration --test faults --no-run
            ;;
        all) build properties && build simulation && build faults ;;
        *) echo "soak: '$1' is no part; all, properties, simulation or faults" >&2 && exit 2 ;;
    esac
}

build "$part"
start=$SECONDS
end=$((start + minutes * 60))
case $part in
    properties) properties "$end" ;;
    simulation) simulation "$end" ;;
    faults) faults "$end" ;;
    all)
        properties $((start + minutes * 15))
        simulation $((start + minutes * 30))
        faults "$end"
        ;;
esac
[ ! -s "$runs" ] || table | tee "$target/soak/table.md"
echo "soak: $(((SECONDS - start) / 60)) minutes"
exit $failed
