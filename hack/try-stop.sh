# Sourced by hack/try: removes every container, ends the daemon, leaves nothing behind.
# shellcheck shell=bash
# shellcheck disable=SC2154
target=$(rustc -vV | sed -n 's/^host: //p')
wherry=$(target_dir)/$target/release/wherry
if "$wherry" version >/dev/null 2>&1; then
  for name in $("$wherry" --format json ps -a | tr ',' '\n' | sed -n 's/.*"id":"\([0-9a-f]*\)".*/\1/p'); do
    "$wherry" rm -f "$name" >/dev/null
  done
fi
[ -f "$scratch/pid" ] && kill "$(cat "$scratch/pid")" 2>/dev/null && sleep 1
ip link delete wherry0 2>/dev/null || true
nft delete table ip wherry 2>/dev/null || true
rm -rf "$scratch"
say "Stopped; nothing is left of it"
