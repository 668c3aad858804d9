#!/usr/bin/env bash
# Runs in the guest (hack/guest --tests): what critest asks of every runtime, with the systemd driver, for the
# daemon decides for it there. The image is made of local files, for there is no network.
set -euo pipefail
core='Container runtime should support|OOMKilled|Idempotence (Stop|Remove)(Container|PodSandbox)|PodSandbox'
core+='|Runtime info|NamespaceOption|Networking.*(DNS|hostname)|Security Context bucket|ReadOnly|Readonly'
busybox=registry.k8s.io/e2e-test-images/busybox:1.29-2
mkdir -p /node/cni /node/image && cd /node

umoci init --layout image/oci
umoci new --image image/oci:busybox
umoci unpack --image image/oci:busybox image/bundle
root=image/bundle/rootfs
mkdir -p $root/bin $root/etc $root/tmp
cp /bin/busybox $root/bin/
for name in $(busybox --list); do ln -s busybox "$root/bin/$name" 2>/dev/null || true; done
printf '%s\n' root:x:0:0::/root:/bin/sh nobody:x:65534:65534::/:/bin/sh >$root/etc/passwd
umoci repack --image image/oci:busybox image/bundle
umoci config --image image/oci:busybox --config.cmd sh --config.env PATH=/bin
skopeo --insecure-policy copy --quiet image/oci:busybox "docker-archive:image/tar:$busybox"
printf 'defaultTestContainerImage: %s\n' "$busybox" >images.yaml

cat >cni/10-guest.conflist <<'X'
{"cniVersion": "1.0.0", "name": "guest", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "ipam": {"type": "host-local",
   "ranges": [[{"subnet": "10.90.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
X
socket=/node/wherry.sock
wherry serve --socket $socket --root /node/root --state /run/node --cni-conf-dir /node/cni 2>log &
for _ in $(seq 300); do wherry --socket $socket version >/dev/null 2>&1 && break; sleep 0.2; done
wherry --socket $socket image import image/tar
code=0
critest -runtime-endpoint "unix://$socket" -test-images-file images.yaml -ginkgo.focus "$core" \
  -ginkgo.no-color -ginkgo.succinct || code=$?
[ $code = 0 ] || tail -n 100 log
left=$(systemctl list-units --all --plain --no-legend 'cri-wherry-*.scope')
[ -z "$left" ] || { echo "scopes are left: $left"; code=1; }
exit $code
