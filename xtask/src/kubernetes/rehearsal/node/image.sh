# Builds the image, in mount and process namespaces of its own, so that a build that is killed leaves nothing mounted.
# Takes the step, and the folder to work in, where `recipe` is helm-charts/minihub/image.
set -eu
cd "$2"

case $1 in
# A root file system with Debian's packages. DEBIAN_MIRROR may name another server than Debian's own.
debian)
    debootstrap --variant minbase --include "$(paste -s -d , recipe/packages)" trixie rootfs ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"}
    ;;
# What PyPI and npm give, as the machine reaches them.
install)
    mkdir rootfs/tmp/image
    for path in /etc/resolv.conf /etc/ssl/certs /etc/pip.conf; do
        [ -e "$path" ] || continue
        [ -d "$path" ] || touch "rootfs$path"
        mount --bind -o ro "$path" "rootfs$path"
    done
    mount --bind -o ro recipe rootfs/tmp/image
    mount -t proc proc rootfs/proc
    PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot rootfs sh /tmp/image/install.sh
    ;;
# One layer, and two images of it: minihub's, and the one that keeps a pod's network. containerd unpacks them into
# `containerd`; the packed layer isn't needed after that.
import)
    mkdir image containerd
    tar --create --file image/layer.tar --directory rootfs --numeric-owner --sort name --exclude './dev/*' \
        --exclude ./tmp/image --exclude ./etc/resolv.conf --exclude ./etc/pip.conf .
    digest=$(sha256sum image/layer.tar | cut -d ' ' -f 1)
    config() {
        echo '{"os": "linux", "architecture": "'"$3"'", "config": {"User": "1000", "WorkingDir": "/home/jovyan",
            "Env": ["PATH=/opt/minihub/bin:/usr/local/bin:/usr/bin:/bin"], "Entrypoint": ["tini", "--"], "Cmd": '"$2"'},
            "rootfs": {"type": "layers", "diff_ids": ["sha256:'"$digest"'"]}}' >"image/$1.json"
    }
    architecture=$(chroot rootfs dpkg --print-architecture)
    config minihub '["jupyterhub-singleuser"]' "$architecture"
    config pause '["sleep", "infinity"]' "$architecture"
    echo '[{"Config": "minihub.json", "RepoTags": ["localhost/xtask/minihub:1"], "Layers": ["layer.tar"]},
        {"Config": "pause.json", "RepoTags": ["localhost/xtask/pause:1"], "Layers": ["layer.tar"]}]' >image/manifest.json

    mount -t tmpfs tmpfs /run
    echo 'version = 2
root = "'"$2"'/containerd"
disabled_plugins = ["io.containerd.grpc.v1.cri"]' >containerd.toml
    containerd --config containerd.toml >containerd.log 2>&1 &
    until [ -S /run/containerd/containerd.sock ]; do
        kill -0 $! || { cat containerd.log >&2; exit 1; }
        sleep 0.05
    done
    tar --create --directory image . | ctr --namespace k8s.io images import -
    rm "containerd/io.containerd.content.v1.content/blobs/sha256/$digest"
    ;;
esac
