# Builds an image, in mount and process namespaces of its own, so that a build that is killed leaves nothing mounted.
# Takes the step, and the folder to work in, where `recipe` is what the image is made from.
set -eu
cd "$2"

case $1 in
# A root file system with Debian's packages. DEBIAN_MIRROR may name another server than Debian's own.
debian)
    debootstrap --variant minbase --include "$(paste -s -d , recipe/packages)" trixie rootfs ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"}
    touch -d @0 base
    ;;
# Another image's root file system, to add to.
copy)
    cp -a "$3" rootfs
    touch base
    ;;
# What PyPI and npm give, as the machine reaches them.
install)
    mkdir -p rootfs/tmp/image
    for path in /etc/resolv.conf /etc/ssl/certs /etc/pip.conf; do
        [ -e "$path" ] || continue
        [ -d "$path" ] || touch "rootfs$path"
        mount --bind -o ro "$path" "rootfs$path"
    done
    mount --bind -o ro recipe rootfs/tmp/image
    mount -t proc proc rootfs/proc
    mount --bind /dev rootfs/dev
    PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot rootfs sh /tmp/image/install.sh
    ;;
# One layer: all that is newer than what it was copied from.
pack)
    mkdir -p oci/blobs/sha256
    (cd rootfs && find . -path './dev/*' -prune -o -cnewer ../base ! -path ./tmp/image ! -path ./etc/resolv.conf \
        ! -path ./etc/pip.conf -print0) | sort --zero-terminated |
        tar --create --file layer.tar --directory rootfs --numeric-owner --no-recursion --null --files-from -
    hash=$(sha256sum layer.tar | cut -d ' ' -f 1)
    mv layer.tar "oci/blobs/sha256/$hash"
    printf 'sha256:%s' "$hash" >layer
    chroot rootfs dpkg --print-architecture | tr -d '\n' >architecture
    ;;
# Unpacks the images with containerd into the folder `containerd`, which doesn't need the packed layer after that.
unpack)
    mkdir containerd
    mount -t tmpfs tmpfs /run
    echo 'version = 2
root = "'"$2"'/containerd"
disabled_plugins = ["io.containerd.grpc.v1.cri"]' >containerd.toml
    containerd --config containerd.toml >containerd.log 2>&1 &
    until [ -S /run/containerd/containerd.sock ]; do
        kill -0 $! || { cat containerd.log >&2; exit 1; }
        sleep 0.05
    done
    tar --create --directory oci . | ctr --namespace k8s.io images import -
    rm "containerd/io.containerd.content.v1.content/blobs/sha256/$(cut -d : -f 2 layer)"
    ;;
esac
