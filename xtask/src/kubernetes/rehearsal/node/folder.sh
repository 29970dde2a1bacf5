#!/bin/sh
# A volume is a folder in the node's memory: a driver as kubelet calls it for `flexVolume`.
set -eu
case $1 in
init)
    echo '{"status": "Success", "capabilities": {"attach": false}}'
    exit
    ;;
mount)
    folder=/run/node/volumes/$(printf %s "$3" | sed 's/.*"folder":"\([-0-9a-f]*\)".*/\1/')
    mkdir -p "$folder" "$2"
    mount --bind "$folder" "$2"
    ;;
unmount)
    umount "$2"
    ;;
*)
    echo '{"status": "Not supported"}'
    exit 1
    ;;
esac
echo '{"status": "Success"}'
