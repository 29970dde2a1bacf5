#!/bin/sh
# Adds what the images of Zero to JupyterHub's and Dask Gateway's charts have to minihub's image, whose JupyterLab, Dask and
# proxy are in them, too.
set -eu
cd "$(dirname "$0")"

apt-get update
DEBIAN_FRONTEND=noninteractive xargs apt-get install --yes --no-install-recommends <packages

below=/opt/minihub
to=/opt/z2jh
python3 -m venv "$to"
echo "$below"/lib/python3.*/site-packages >"$(echo "$to"/lib/python3.*/site-packages)/minihub.pth"
"$to/bin/pip" install --no-cache-dir --require-hashes --requirement requirements.txt

# JupyterLab's files are in the image below. The hub's are where charts mount more of them.
cp -R --symbolic-link --no-clobber "$below/share/jupyter" "$to/share"
cp -R --symbolic-link --no-clobber "$below/etc" "$to"
mkdir -p /usr/local/share /srv/jupyterhub
mv "$to/share/jupyterhub" /usr/local/share
ln -s /usr/local/share/jupyterhub "$to/share"
chown 1000:1000 /srv/jupyterhub

install kube-scheduler /usr/local/bin
install image-awaiter /
rm -rf /var/lib/apt/lists/* /var/cache/apt/* /root/.cache
