#!/bin/bash
# MLServer in a folder of its own: python, port. A worker process per core (docs.seldon.ai/mlserver/user-guide/
# parallel-inference); without debug, which is on by default and logs every request.
set -euo pipefail
cp "$(dirname "$(readlink -f "$0")")"/mlserver_plain/* .
export MLSERVER_HOST=127.0.0.1 MLSERVER_HTTP_PORT=$2 MLSERVER_GRPC_PORT=$(($2 + 1)) MLSERVER_METRICS_PORT=$(($2 + 2))
export MLSERVER_PARALLEL_WORKERS=$BENCHMARK_WORKERS MLSERVER_DEBUG=false
exec "$(dirname "$1")/mlserver" start .
