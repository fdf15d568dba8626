#!/usr/bin/env bash
# Puts real bugs into the log, one at a time (tests/simulation/mutants/*.patch), and wants the simulation to catch each.
# Not in CI: every mutant is a build. Arguments name mutants; without any, all are tried. HOLDFAST_SIM_SEEDS: how many seeds.
set -euo pipefail
cd "$(dirname "$0")/.."
target="${CARGO_TARGET_DIR:-$PWD/target}"
tree="$target/mutants"
seeds="${HOLDFAST_SIM_SEEDS:-100}"
names=("$@")
[ ${#names[@]} -gt 0 ] || names=($(basename -s .patch tests/simulation/mutants/*.patch))
git worktree remove --force "$tree" 2>/dev/null || true
git worktree add --detach --quiet "$tree" HEAD
trap 'git worktree remove --force "$tree"' EXIT
missed=()
for name in "${names[@]}"; do
  git -C "$tree" checkout --quiet -- .
  git -C "$tree" apply "$PWD/tests/simulation/mutants/$name.patch"
  (cd "$tree" && CARGO_TARGET_DIR="$target" cargo test --workspace --test simulation --no-run --quiet)
  out="$target/mutants-$name.txt"
  if (cd "$tree" && HOLDFAST_SIM_SEEDS="$seeds" CARGO_TARGET_DIR="$target" \
      cargo test --workspace --test simulation -- seeds --exact --nocapture) >"$out" 2>&1; then
    missed+=("$name")
    echo "$name: not caught by $seeds seeds"
  else
    echo "$name: caught by $(grep -c '^violation: ' "$out" || true) of $seeds seeds, first: $(grep -m1 '^violation: ' "$out" || tail -1 "$out")"
  fi
done
[ ${#missed[@]} -eq 0 ]
