#!/bin/sh
# Gathers under /layer what `COPY --from=… /layer /` puts into the image, the same in every build: compiled without
# dates, readable by everyone, dated alike. (Copied to any other place than /, a folder would carry the build's date.)
# usage: layer [--library] [PATH…]     --library: the compiled form of Python's own library
set -eu
export PYTHONHASHSEED=0 # the order of sets is compiled in

compiled() { python -m compileall -q -j 0 --invalidation-mode unchecked-hash "$@"; }

mkdir -p /layer
if [ "${1-}" = --library ]; then
    shift
    library=$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')
    compiled -x '/(test|tests|idlelib|lib2to3|tkinter|turtledemo|ensurepip|site-packages)/' "$library"
    find "$library" -path '*/site-packages' -prune -o -name __pycache__ -print | tar -c -T - | tar -x -C /layer
fi
for path; do
    mkdir -p "/layer$(dirname "$path")"
    mv "$path" "/layer$path"
done
if [ -d /layer/opt ]; then
    find /layer/opt -name __pycache__ -prune -exec rm -r {} +
    compiled -s /layer -p / /layer/opt
fi
chmod -R a+rX,go-w /layer
find /layer -exec touch --no-dereference --date=@0 {} +
