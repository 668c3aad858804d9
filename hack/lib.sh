# Shared by the scripts in hack/: words for people, and installing what is missing on Debian or Ubuntu.
# shellcheck shell=bash

# A heading.
say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }

# need PACKAGE:PROGRAM...: installs the Debian packages whose programs are missing.
need() {
  local missing=() pair program
  for pair in "$@"; do
    program=${pair#*:}
    command -v "$program" >/dev/null 2>&1 || [ -e "$program" ] || missing+=("${pair%%:*}")
  done
  [ ${#missing[@]} = 0 ] && return 0
  command -v apt-get >/dev/null || { echo "please install: ${missing[*]}" >&2; exit 1; }
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# Rust by rustup, if there is none.
need_rust() {
  [ -f "$HOME/.cargo/env" ] && . "$HOME/.cargo/env"
  command -v cargo >/dev/null && return 0
  need curl:curl gcc:gcc
  curl --proto '=https' -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal >/dev/null
  . "$HOME/.cargo/env"
}

# Where cargo builds.
target_dir() {
  cargo metadata --no-deps --format-version 1 | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'
}
