#!/bin/bash
# TorchServe with a model archive made on the spot: python, port. A worker per core (its docs/performance_guide.md says
# to try more workers from half the cores on, each with one thread; a third was no gain on two cores); a queue that holds
# the benchmark's clients.
set -euo pipefail
bin=$(dirname "$1"); here=$(dirname "$(readlink -f "$0")"); mkdir -p store
export TMPDIR=$PWD  # its pid file lies there: one for all would refuse to start after a run that was killed
"$bin/torch-model-archiver" --model-name plain --version 1 --handler "$here/torchserve_plain.py" \
  --extra-files "$here/plain.py" --export-path store --force
cat > config.properties <<EOF
inference_address=http://127.0.0.1:$2
management_address=http://127.0.0.1:$(($2 + 1))
metrics_address=http://127.0.0.1:$(($2 + 2))
default_workers_per_model=$BENCHMARK_WORKERS
disable_token_authorization=true
enable_envvars_config=false
job_queue_size=1000
EOF
exec "$bin/torchserve" --foreground --model-store store --models plain=plain.mar --ts-config config.properties
