#!/bin/sh
# Makes a folder's content the same in every build: compiled without dates, readable by everyone, dated alike.
# usage: layer FOLDER              a folder of the image
#        layer --library FOLDER    gathers the compiled form of Python's own library there
set -eu
export PYTHONHASHSEED=0 # the order of sets is compiled in

compiled() { python -m compileall -q -j 0 --invalidation-mode unchecked-hash "$@"; }

if [ "$1" = --library ]; then
    folder=$2 library=$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')
    compiled -x '/(test|tests|idlelib|lib2to3|tkinter|turtledemo|ensurepip|site-packages)/' "$library"
    mkdir -p "$folder"
    find "$library" -path '*/site-packages' -prune -o -name __pycache__ -print | tar -c -T - | tar -x -C "$folder"
else
    folder=$1
    find "$folder" -name __pycache__ -prune -exec rm -r {} +
    [ ! -d "$folder/lib" ] || compiled -s "$folder" -p /opt/petalpaw "$folder/lib"
fi
chmod -R a+rX,go-w "$folder"
find "$folder" -exec touch --no-dereference --date=@0 {} +
