# Sourced by hack/try: the daemon below $scratch, its command line, and taking all of it away. Bridge and
# addresses are its own, so that a Wherry that this machine runs already is not disturbed.
# shellcheck shell=bash
# shellcheck disable=SC2154

# The command line of this daemon.
wherry() { as_root "$scratch/bin/wherry" --socket "$scratch/wherry.sock" "$@"; }

# The folder is not there, or is empty, or is one that hack/try made.
is_ours() { [ -e "$scratch/.wherry-try" ] || [ -z "$(ls -A "$scratch" 2>/dev/null)" ]; }

# Its process, if it runs.
daemon() {
  local pid
  pid=$(cat "$scratch/pid" 2>/dev/null) || return 1
  case "$(as_root readlink "/proc/$pid/exe")" in "$scratch/bin/wherry"*) echo "$pid" ;; *) return 1 ;; esac
}

# Starts the daemon unless it runs; one that does not answer is told with the end of its log.
start_daemon() {
  daemon >/dev/null && return 0
  printf '[network]\nbridge = "wherry-try"\nsubnet = "10.87.0.0/16"\n' |
    as_root tee "$scratch/config.toml" >/dev/null
  # shellcheck disable=SC2016
  as_root sh -c 'cd "$1" && mkdir -p state && { setsid bin/wherry serve --config config.toml \
      --socket "$1/wherry.sock" --root root --state state --cni-conf-dir cni >>log 2>&1 </dev/null &
    echo $! >pid; }' sh "$scratch"
  for _ in $(seq 100); do
    ! wherry version >/dev/null 2>&1 || return 0
    daemon >/dev/null || break
    sleep 0.1
  done
  tail -n 5 "$scratch/log" >&2
  return 1
}

# Removes every container, ends the daemon, and leaves nothing behind. May be repeated.
stop_all() {
  local pid name mount
  [ -e "$scratch/.wherry-try" ] || { say "Nothing of hack/try is in $scratch"; return 0; }
  # Only a daemon can take its containers away; one that never served has none.
  if start_daemon 2>/dev/null; then
    for name in $(wherry ps -aq) $(wherry pods | awk 'NR > 1 { print $1 }'); do
      wherry rm -f "$name" >/dev/null 2>&1 || true
    done
  fi
  pid=$(daemon) && as_root kill "$pid"
  for _ in $(seq 100); do daemon >/dev/null || break; sleep 0.1; done
  for mount in $(awk -v below="$scratch/" 'index($2, below) == 1 { print $2 }' /proc/self/mounts | sort -r); do
    as_root umount "$mount"
  done
  as_root ip link delete wherry-try 2>/dev/null || true
  as_root nft delete table ip wherry-wherry-try 2>/dev/null || true
  # Groups of another Wherry are not empty, and stay.
  for mount in $(awk '$3 ~ /^cgroup2?$/ { print $2 }' /proc/self/mounts); do
    as_root rmdir "$mount/wherry/runtime" "$mount/wherry/pods" "$mount/wherry" 2>/dev/null || true
  done
  as_root rm -rf "$scratch"
  say "Stopped; nothing is left of it"
}
