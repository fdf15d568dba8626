#!/usr/bin/env bash
# Puts real bugs into the code, one at a time (tests/mutants/*.patch), and wants the tests to catch each: those that take one of
# ARCHITECTURE.md's rules out name the test in a line "Test: <arguments of cargo test>"; the others are for the simulation.
# Not in CI: every mutant is a build. Arguments name mutants; without any, all are tried. HOLDFAST_SIM_SEEDS: how many seeds.
set -euo pipefail
cd "$(dirname "$0")/.."
target="${CARGO_TARGET_DIR:-$PWD/target}"
tree="$target/mutants"
export HOLDFAST_SIM_SEEDS="${HOLDFAST_SIM_SEEDS:-100}"
names=("$@")
[ ${#names[@]} -gt 0 ] || names=($(basename -s .patch tests/mutants/*.patch))
git worktree remove --force "$tree" 2>/dev/null || true
git worktree add --detach --quiet "$tree" HEAD
trap 'git worktree remove --force "$tree"' EXIT
missed=()
for name in "${names[@]}"; do
  patch="$PWD/tests/mutants/$name.patch"
  git -C "$tree" checkout --quiet -- .
  git -C "$tree" apply "$patch"
  read -ra test <<<"$(sed -n 's/^Test: //p' "$patch")"
  if [ ${#test[@]} -eq 0 ]; then
    build=(--workspace --test simulation) test=("${build[@]}" -- seeds --exact --nocapture)
  else
    build=("${test[@]}")
  fi
  (cd "$tree" && CARGO_TARGET_DIR="$target" cargo test --no-run --quiet "${build[@]}")
  out="$target/mutants-$name.txt"
  if (cd "$tree" && CARGO_TARGET_DIR="$target" timeout 600 cargo test "${test[@]}") >"$out" 2>&1; then
    missed+=("$name")
    echo "$name: NOT CAUGHT by ${test[*]}"
  elif grep -q '^violation: ' "$out"; then
    echo "$name: caught by $(grep -c '^violation: ' "$out") of $HOLDFAST_SIM_SEEDS seeds, first: $(grep -m1 '^violation: ' "$out")"
  else
    echo "$name: caught by $(grep -E '^test .* FAILED$' "$out" | head -3 | sed 's/^test //; s/ \.\.\. FAILED//' | paste -sd' ' || true)"
  fi
done
[ ${#missed[@]} -eq 0 ]
