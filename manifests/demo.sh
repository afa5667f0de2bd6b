#!/bin/sh
# The main job against the built-in simulator: no key, no cost. `make demo` runs this.
set -eu
mkdir -p demo
cp manifests/first.yaml demo/
cd demo

say() { printf '\n$ %s\n' "$*"; "$@"; }

say batchrunner plan first.yaml --db batchrunner.sim.db
say batchrunner run first.yaml --simulate
say batchrunner jobs --db batchrunner.sim.db
printf '\nThe files (they play):\n'
find "$PWD/outputs" -name '*.mp4' | sort
printf '\nRun it again, and it knows that there is nothing left to pay for:\n'
say batchrunner run first.yaml --simulate
