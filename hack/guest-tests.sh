# What hack/guest --tests takes along: the tests, built and packed here, and the script that runs them there.
# shellcheck shell=bash

# Tests that touch cgroups, by way of the socket or alone, and those of AppArmor, which is on there; what only
# knows files and wires gains nothing here.
# The last ones are about trees that are cloned or stacked before they are attached: Linux 6.15, Debian has 6.12.
guest_filter='test(/(^|::)root_/) and (package(shim-sys) + package(shim-runtime)
    + (binary(cri) and test(/^((systemd|limits|stats|resize|metrics|life|execs|process)|security::apparmor)::/))
    + (binary(faults) and test(/^(monitors|daemon)::/)))
  - test(/an_overlay_of_mapped_layers|its_read_only_copy_is_not|nodes_have_the_mode_and_the_owner/)'

# With SELinux only what is about it: nothing else differs.
[ "${WHERRY_GUEST_LSM:-}" != selinux ] || guest_filter='test(/^security::selinux::root_/)'

# pack_tests FOLDER [FILTERSET]: whatever the guest needs.
pack_tests() {
  local to="$1" host
  need_rust
  need python3:python3 binutils:strip zstd:zstd
  cargo_tools nextest=0.9.148
  mkdir -p "$to/bin" "$to/source"
  say "Building the program and the tests"
  cargo build --locked --quiet -p cri-shim --bin wherry
  cargo nextest archive --locked --archive-file "$work/tests.tar.zst" \
    -p shim-sys -p shim-child -p shim-runtime -p wherry-tests >"$work/archive" 2>&1 ||
    { cat "$work/archive" >&2; fail "the tests were not built"; }
  tar --zstd -C "$to" -xf "$work/tests.tar.zst" && rm "$work/tests.tar.zst"
  git ls-files -z | xargs -0 cp --parents -t "$to/source"
  host=$(rustc -vV | sed -n 's/^host: //p')
  cp "$(target_dir)/$host/debug/wherry" "$(command -v cargo-nextest)" "$to/bin/"
  if [ -n "${CRITEST:-}" ]; then cp "$CRITEST" "$to/bin/critest"; critest_image "$to/image.tar"; fi
  # Emulated disks are slow, and symbols are read by nobody there.
  rm -rf "$to"/target/*/debug/build
  find "$to/bin" "$to/target" -type f -perm -u+x -exec strip --strip-debug {} +
  printf '%s' "${2:-$guest_filter}" >"$to/filter"
  guest_tests >"$to/tests"
}

# critest_image FILE: an image of busybox under the name that critest asks for. Made here: emulated it takes minutes.
critest_image() {
  local to="$1" at="$work/image" root="$work/image/bundle/rootfs"
  need busybox-static:busybox umoci:umoci skopeo:skopeo
  mkdir "$at"
  umoci --log=error init --layout "$at/oci"
  umoci --log=error new --image "$at/oci:busybox"
  umoci --log=error unpack --image "$at/oci:busybox" "$at/bundle"
  mkdir -p "$root/bin" "$root/etc" "$root/tmp"
  cp /bin/busybox "$root/bin/"
  for name in $(busybox --list); do ln -s busybox "$root/bin/$name" 2>/dev/null || true; done
  printf '%s\n' root:x:0:0::/root:/bin/sh nobody:x:65534:65534::/:/bin/sh >"$root/etc/passwd"
  umoci --log=error repack --image "$at/oci:busybox" "$at/bundle"
  umoci --log=error config --image "$at/oci:busybox" --config.cmd sh --config.env PATH=/bin
  skopeo --insecure-policy copy --quiet "oci:$at/oci:busybox" \
    "docker-archive:$to:registry.k8s.io/e2e-test-images/busybox:1.29-2"
}

guest_tests() {
  cat <<'SCRIPT'
cd /payload/source
export WHERRY_BIN=/payload/bin/wherry WHERRY_GUEST=1
cargo-nextest nextest run --profile guest -E "$(cat /payload/filter)" --workspace-remap /payload/source \
  --target-dir-remap /payload/target --cargo-metadata /payload/target/nextest/cargo-metadata.json \
  --binaries-metadata /payload/target/nextest/binaries-metadata.json || exit 1
[ ! -e /payload/bin/critest ] || exec bash /payload/source/hack/guest-critest.sh
SCRIPT
}
