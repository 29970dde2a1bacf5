# The first process of the real node, in mount, process and network namespaces of its own: when it ends, however that
# comes, the kernel ends all others in them and takes their mounts, links and iptables rules along.
# Takes the cluster's folder, kwok's folder in it, the folder with the unpacked image, and the folder of the CNI plugins.
set -eu
cluster=$1 control_plane=$2 image=$3 cni=$4

# Whatever the node writes stays in memory, and out of the machine's own folders.
mount -t tmpfs -o mode=755 node /run
mount -t tmpfs -o mode=755 node /var/log
mkdir -p /run/node/lib /run/node/work /run/node/tmp /run/node/sysctl /run/node/volumes
mount -t overlay -o lowerdir=/var/lib,upperdir=/run/node/lib,workdir=/run/node/work node /var/lib
export TMPDIR=/run/node/tmp
ln -s "$cluster" /run/node/cluster
ln -s "$control_plane/pki" /run/node/pki
ln -s "$control_plane/kubeconfig.yaml" /run/node/kubeconfig
ln -s "$cni" /run/node/cni
ln -s "$(readlink "$cluster/registry")" /run/node/registry

# kubelet sets these for the whole machine, unless it finds what it wants.
for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
    kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
    echo "${setting#*=}" >"/run/node/sysctl/$(basename "${setting%=*}")"
    mount --bind "/run/node/sysctl/$(basename "${setting%=*}")" "/proc/sys/${setting%=*}"
done

# The image as `unpack` left it: its one layer stays on the disk, under what containers write.
root=/run/node/containerd
overlayfs=io.containerd.snapshotter.v1.overlayfs
mkdir -p $root/$overlayfs/snapshots
cp -R "$image/io.containerd.metadata.v1.bolt" "$image/io.containerd.content.v1.content" $root
cp "$image/$overlayfs/metadata.db" $root/$overlayfs
ln -s "$image/$overlayfs/snapshots/"* $root/$overlayfs/snapshots

# The other end of eth0 is `xtask0` on the machine. Nobody beyond the machine gets in by it.
ip link set lo up
until ip link set eth0 up 2>/dev/null; do sleep 0.02; done
ip address add 10.213.88.2/30 dev eth0
iptables -t raw -A PREROUTING -i eth0 ! -s 10.213.88.1 -j DROP
# The registry asks for no password. Pods get their images from containerd, and nothing from the registry itself.
iptables -A INPUT -p tcp --dport 5000 ! -s 10.213.88.0/30 -j REJECT

start() {
    program=$1
    shift
    "$cluster/bin/$program" "$@" >"$cluster/logs/$program.log" 2>&1 &
}
OTEL_TRACES_EXPORTER=none start registry serve /run/node/cluster/registry.yaml
start containerd --config /run/node/cluster/containerd.toml
touch "$cluster/node-is-up"
until [ -e "$cluster/control-plane-is-up" ]; do sleep 0.02; done
start coredns -conf /run/node/cluster/Corefile
start kube-proxy --config /run/node/cluster/kube-proxy.yaml
start kubelet --config /run/node/cluster/kubelet.yaml --kubeconfig /run/node/kubeconfig \
    --hostname-override node-0 --node-ip 10.213.88.2 --root-dir /run/node/kubelet

# What loses its parent is ours to bury.
while :; do
    sleep 86400 &
    wait
done
