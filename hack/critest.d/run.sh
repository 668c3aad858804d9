#!/usr/bin/env bash
# One run of critest, inside the namespaces that hack/critest made: registry, runtime, suite.
#   run.sh RUNTIME OUT TURN PROCS [OPTIONS OF CRITEST]
set -euo pipefail
cd "$(dirname "$0")/../.."
. hack/lib.sh
runtime=$1 out=$2 turn=$3 procs=$4
shift 4
scratch=$(mktemp -d)
# Every process ends with this one, the first of its PID namespace, and every mount with the last of them.
trap 'umount "$scratch/run"; rm -rf --one-file-system "$scratch"' EXIT

ip link set lo up
mkdir -p "$scratch"/{net.d,certs.d,root,run}
mount -t tmpfs run "$scratch/run"
if [ -n "${CRITEST_IMAGES:-}" ]; then
  cat >"$scratch/registry.yml" <<Y
version: 0.1
storage: {filesystem: {rootdirectory: $CRITEST_IMAGES}}
http: {addr: 127.0.0.1:5000}
log: {level: error, accesslog: {disabled: true}}
Y
  docker-registry serve "$scratch/registry.yml" >"$scratch/registry.log" 2>&1 &
  for host in docker.io registry.k8s.io gcr.io k8s.gcr.io; do
    mkdir -p "$scratch/certs.d/$host"
    printf '[host."http://127.0.0.1:5000"]\n  capabilities = ["pull", "resolve"]\n' >"$scratch/certs.d/$host/hosts.toml"
  done
fi
cp hack/critest.d/network.conflist "$scratch/net.d/10-critest.conflist"

socket=$scratch/run/$runtime.sock
# Where Wherry has it with a state folder of its own; containerd is told.
plugins=$scratch/run/state/nri.sock
case "$runtime" in
  wherry)
    "$WHERRY_BIN" serve --socket "$socket" --root "$scratch/root" --state "$scratch/run/state" \
      --cni-conf-dir "$scratch/net.d" --cni-bin-dir "$cache/peers/cni" \
      --registry-config "$scratch/certs.d" >"$out/$runtime-$turn.log" 2>&1 &
    ;;
  containerd)
    sed "s|@SCRATCH@|$scratch|; s|@SOCKET@|$socket|; s|@PLUGINS@|$plugins|; s|@CACHE@|$cache|" \
      hack/critest.d/containerd.toml \
      >"$scratch/config.toml"
    PATH="$cache/peers/containerd:$cache/peers/runc:$PATH" \
      containerd --config "$scratch/config.toml" >"$out/$runtime-$turn.log" 2>&1 &
    ;;
esac
for _ in $(seq 300); do [ -S "$socket" ] && break; sleep 0.1; done
[ -S "$socket" ] || { tail "$out/$runtime-$turn.log"; fail "$runtime did not come up"; }

# The suite's own log is long; the report has all of it.
report=$runtime-$turn.json
PATH="$cache/peers/ginkgo:$PATH" ginkgo run --procs "$procs" --json-report "$report" --output-dir "$out" \
  --no-color --succinct "$out/critest.test" -- \
  -runtime-endpoint "unix://$socket" -nri-socket "$plugins" "$@" >"$out/$runtime-$turn.out" 2>&1 || true
kill "$!"
wait "$!" || true
[ -s "$out/$report" ] || { tail -40 "$out/$runtime-$turn.out"; fail "critest left no report"; }
