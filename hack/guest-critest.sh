#!/usr/bin/env bash
# Runs in the guest (hack/guest --tests): what critest asks of every runtime, with the systemd driver, for the
# daemon decides for it there. The image came along (/payload/image.tar), for there is no network.
set -euo pipefail
core='Container runtime should support|OOMKilled|Idempotence (Stop|Remove)(Container|PodSandbox)|PodSandbox'
core+='|AppArmor|Runtime info|NamespaceOption|Networking.*(DNS|hostname)|Security Context bucket|ReadOnly|Readonly'
[ ! -e /sys/fs/selinux/enforce ] || core=SELinux
# What asks for images of the network's, or for a busybox that is not Debian's: with ipcs and pgrep, and a shell
# that runs ls as a program.
without='MaskedPaths|HostIpc|HostPID|PodPID|ContainerPID|Image Volume|execSync with timeout'
mkdir -p /node/cni && cd /node
echo 'defaultTestContainerImage: registry.k8s.io/e2e-test-images/busybox:1.29-2' >images.yaml
cat >cni/10-guest.conflist <<'X'
{"cniVersion": "1.0.0", "name": "guest", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "ipam": {"type": "host-local",
   "ranges": [[{"subnet": "10.90.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
X
socket=/node/wherry.sock
wherry serve --socket $socket --root /node/root --state /run/node --cni-conf-dir /node/cni 2>log &
for _ in $(seq 300); do wherry --socket $socket version >/dev/null 2>&1 && break; sleep 0.2; done
wherry --socket $socket image import /payload/image.tar
code=0
critest -runtime-endpoint "unix://$socket" -test-images-file images.yaml -ginkgo.focus "$core" -ginkgo.skip "$without" \
  -ginkgo.no-color -ginkgo.succinct || code=$?
[ $code = 0 ] || tail -n 100 log
left=$(systemctl list-units --all --plain --no-legend 'cri-wherry-*.scope')
[ -z "$left" ] || { echo "scopes are left: $left"; code=1; }
exit $code
