# Shared by the scripts in hack/: words for people, and installing what is missing on Debian or Ubuntu.
# shellcheck shell=bash

# Where hack/ keeps what it fetched and built, outside the repository.
cache="${XDG_CACHE_HOME:-$HOME/.cache}/wherry"
tools="$cache/tools"
PATH="$tools/bin:$PATH:/usr/sbin:/sbin:/usr/local/go/bin"

# A heading; bold where a person looks.
say() {
  if [ -t 1 ]; then printf '\n\033[1m== %s\033[0m\n' "$*"; else printf '\n== %s\n' "$*"; fi
}

fail() { printf '%s\n' "$*" >&2; exit 1; }

# as_root COMMAND...: the command as root, or a clear sentence.
as_root() {
  if [ "$EUID" = 0 ]; then "$@"
  elif command -v sudo >/dev/null; then sudo "$@"
  else fail "this needs root: run as root, or install sudo"; fi
}

# need PACKAGE:PROGRAM...: installs the Debian packages whose programs are missing.
need() {
  local missing=() pair program
  for pair in "$@"; do
    program=${pair#*:}
    command -v "$program" >/dev/null 2>&1 || [ -e "$program" ] || missing+=("${pair%%:*}")
  done
  [ ${#missing[@]} = 0 ] && return 0
  command -v apt-get >/dev/null || fail "please install: ${missing[*]}"
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# cargo_tools NAME=VERSION...: cargo's sub-commands, prebuilt, from the Python registry.
cargo_tools() {
  local missing=() pair
  for pair in "$@"; do
    compgen -G "$tools/lib/*/*/*cargo_${pair%%=*}-${pair#*=}.dist-info" >/dev/null ||
      missing+=("astral-dev-toolchain-cargo-${pair%%=*}==${pair#*=}")
  done
  [ ${#missing[@]} = 0 ] && return 0
  if [ ! -x "$tools/bin/pip" ]; then
    python3 -m venv "$tools" || { need python3-venv:missing; python3 -m venv "$tools"; }
  fi
  "$tools/bin/pip" install --quiet --disable-pip-version-check "${missing[@]}"
}

# Rust as new as the workspace asks for; by rustup, if there is none or an old one of the distribution.
need_rust() {
  local wanted have
  wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
  # shellcheck source=/dev/null
  [ -f "$HOME/.cargo/env" ] && . "$HOME/.cargo/env"
  have=$(rustc --version 2>/dev/null | cut -d' ' -f2) || true
  if printf '%s\n' "$wanted" "${have:-0}" | sort -V -C && command -v cargo >/dev/null; then return 0; fi
  ! command -v rustup >/dev/null || fail "Rust $wanted is needed, ${have:-none} is there: run \"rustup update\""
  need curl:curl gcc:gcc
  curl --proto '=https' -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal -c rustfmt,clippy >/dev/null
  # shellcheck source=/dev/null
  . "$HOME/.cargo/env"
}

# Where cargo builds.
target_dir() {
  cargo metadata --no-deps --format-version 1 | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'
}

# build_peers NAME...: the Go programs of hack/peers/NAME, into the cache, again when what they are made of changes.
build_peers() {
  local name made stamp flags what suite version
  command -v go >/dev/null || fail "please install Go 1.26 or newer: the peers are built from Go modules"
  for name in "$@"; do
    made="$cache/peers/$name" flags=() what=tool suite=
    case "$name" in
      runc) flags=(-tags seccomp) ;;
      coredns | flannel) what=. ;;
      kubernetes* | e2e)
        [ "$name" != e2e ] || suite=k8s.io/kubernetes/test/e2e
        # What they say of themselves; kubelets and clients compare it.
        version=$(sed -n 's|^\tk8s.io/kubernetes \(v[0-9.]*\).*|\1|p' "hack/peers/$name/go.mod")
        flags=(-ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$version \
          -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=$(cut -d. -f2 <<<"$version") \
          -X k8s.io/client-go/pkg/version.gitVersion=$version") ;;
    esac
    stamp=$(cat "hack/peers/$name"/*.* | sha256sum)
    [ "$(cat "$made/stamp" 2>/dev/null)" = "$stamp" ] && continue
    say "Building $name (once)"
    mkdir -p "$made"
    # Static where that can be: the programs of a pod's image have no libraries.
    CGO_ENABLED=$([ "$name" = runc ] && echo 1 || echo 0) \
      go build -C "hack/peers/$name" -trimpath -buildvcs=false "${flags[@]}" -o "$made/" "$what"
    # A suite is a program too, and the tool that runs it is of the version that it was built with.
    [ -z "$suite" ] || CGO_ENABLED=0 go test -C "hack/peers/$name" -trimpath -buildvcs=false \
      "${flags[@]}" -vet=off -c -o "$made/" "$suite"
    echo "$stamp" >"$made/stamp"
  done
}

# Builds a debug wherry, and prints where it is.
build_wherry() {
  cargo build --locked -p cri-shim --bin wherry --message-format json-render-diagnostics |
    python3 -c 'import json, sys
found = [line["executable"] for line in map(json.loads, sys.stdin) if line.get("executable")]
print(found[-1])'
}
