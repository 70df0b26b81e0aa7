#!/bin/bash
# Builds the image, runs it as it should be run, and holds it to docs/operations.md: make container-check
# Needs a Docker engine. Where ../shared/tools/container-check.sh is, that brings one (it needs root on Debian 12).
set -euo pipefail
cd "$(dirname "$0")/.."
TOOL=../shared/tools/container-check.sh
engine=

finish() { [ -z "$engine" ] || kill "$engine" 2>/dev/null || true; }
trap finish EXIT

if [ -x "$TOOL" ]; then
    folder=${CTR_DIR:-/var/tmp/container-check}
    began=$(cat "$folder/pid" 2>/dev/null || true)
    KEEP=1 RUN_ARGS="--read-only --tmpfs /tmp --cap-drop ALL --memory 600m" "$TOOL" .
    # An engine that was up before stays up.
    now=$(cat "$folder/pid")
    [ "$now" = "$began" ] || engine=$now
    export DOCKER_HOST=unix://$folder/docker.sock IMAGE=container-check:latest
else
    docker build --tag petalpaw:latest .
fi
.venv/bin/python -m pytest tests/deploy -q
.venv/bin/python -m pytest -m container tests/container -v --capture=no
