#!/bin/sh
# Writes an OCI layout of a small web server (busybox httpd) into the folder $1, from local files only.
set -eu
out=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
rm -rf "$out"
mkdir -p "$out/blobs/sha256" "$work/bin" "$work/www" "$work/tmp" "$work/etc"
cp /bin/busybox "$work/bin/busybox"
for name in sh httpd cat ls ps echo sleep uname id; do ln -s busybox "$work/bin/$name"; done
echo 'root:x:0:0:root:/:/bin/sh' >"$work/etc/passwd"
echo '<h1>Hello from Wherry</h1>' >"$work/www/index.html"
layer=$work.tar
tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$work" -cf "$layer" .

# Puts a file under its digest; prints the digest's hexadecimal digits.
put() {
  hex=$(sha256sum "$1" | cut -d' ' -f1)
  mv "$1" "$out/blobs/sha256/$hex"
  echo "$hex"
}
size() { wc -c <"$out/blobs/sha256/$1" | tr -d ' '; }

case $(uname -m) in x86_64) arch=amd64 ;; aarch64) arch=arm64 ;; *) arch=$(uname -m) ;; esac
l=$(put "$layer")
cat >"$work/config" <<X
{"architecture":"$arch","os":"linux","config":{"Env":["PATH=/bin"],"Cmd":["sh","-c","echo serving on port 3000; exec httpd -f -vv -p 3000 -h /www"],"ExposedPorts":{"3000/tcp":{}}},"rootfs":{"type":"layers","diff_ids":["sha256:$l"]}}
X
c=$(put "$work/config")
cat >"$work/manifest" <<X
{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:$c","size":$(size "$c")},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:$l","size":$(size "$l")}]}
X
m=$(put "$work/manifest")
cat >"$out/index.json" <<X
{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:$m","size":$(size "$m"),"annotations":{"org.opencontainers.image.ref.name":"docker.io/library/hello-web:latest"}}]}
X
echo '{"imageLayoutVersion":"1.0.0"}' >"$out/oci-layout"
