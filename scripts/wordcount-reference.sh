#!/bin/sh
# What examples/wordcount.yaml computes, as one plain pipeline: the yardstick of the demo and of its test.
#
#     scripts/wordcount-reference.sh DIRECTORY
set -eu
export LC_ALL=C
text=${1:?usage: wordcount-reference.sh DIRECTORY}

find "$text" -type f -print0 | sort -z | xargs -0 -r awk 1 \
    | tr -cs 'a-zA-Z' '\n' | tr 'A-Z' 'a-z' | grep . | sort | uniq -c | sort -k1,1nr -k2,2 \
    | awk 'NR <= 20 { printf "%9d %s\n", $1, $2 }
           { total += $1 }
           END { printf "%9d words, %d of them different\n", total, NR }'
