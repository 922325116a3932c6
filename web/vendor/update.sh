#!/bin/sh
# Fetches the chart code anew from npm and puts it here compressed. Run it to check what lies here
# (git shows no change), or with a newer version in VERSION to update.
set -eu
VERSION=4.1.1
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
(cd "$work" && npm pack --silent "plotly.js-basic-dist-min@$VERSION" && tar xzf ./*.tgz)
cp "$work/package/LICENSE" plotly-LICENSE.txt
# -n leaves time and name out, so that the same code gives the same file.
gzip -9 -n -c "$work/package/plotly-basic.min.js" > plotly-basic.min.js.gz
sha256sum "$work/package/plotly-basic.min.js" plotly-basic.min.js.gz
