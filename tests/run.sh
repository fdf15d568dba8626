#!/usr/bin/env bash
# The test command: fetches what is missing, then runs every test of the workspace. Arguments go to the test runner.
set -euo pipefail
cd "$(dirname "$0")/.."
tests/setup.sh
if cargo nextest --version >/dev/null 2>&1; then
  exec cargo nextest run --workspace "$@"
fi
exec cargo test --workspace "$@"
