#!/bin/sh
# Bundles the page into build/, with the icons and the letters where Grafana's components look for them.
set -eu
mkdir -p build/public/build/img build/public/fonts/inter
cp -r node_modules/@grafana/ui/dist/public/img/icons build/public/build/img/
letters=node_modules/@fontsource/inter/files/inter-latin
cp "$letters-400-normal.woff2" build/public/fonts/inter/Inter-Regular.woff2
cp "$letters-500-normal.woff2" build/public/fonts/inter/Inter-Medium.woff2
# The ES modules of @grafana/ui name exports that they do not have; those of CommonJS are whole.
exec node_modules/.bin/esbuild picture.jsx --bundle --format=esm --target=es2022 --outdir=build --minify \
    --jsx=automatic --alias:@grafana/ui=./node_modules/@grafana/ui/dist/cjs/index.cjs \
    --alias:@grafana/data=./node_modules/@grafana/data/dist/cjs/index.cjs \
    --loader:.ttf=empty --define:global=window --define:process.env.NODE_ENV='"production"'
