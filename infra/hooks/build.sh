#!/usr/bin/env bash
# Builds what is deployed: target/azure/functions.zip, and the web client in client/dist.
#
# GEO_EVENTS_PACKAGE may name a finished package, such as that of a release: then no Rust is needed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

out=target/azure

build_package() {
  # A static executable starts on whatever Linux the platform has. The musl target makes one; it needs musl-gcc for the
  # parts that are written in C. Where either is missing, glibc is linked in.
  # At a fixed address it also has nothing to relocate. Both together cut the cold start by about a third.
  local target=x86_64-unknown-linux-musl flags='-C relocation-model=static'
  if ! [ -d "$(rustc --print sysroot)/lib/rustlib/$target" ] || ! command -v musl-gcc >/dev/null; then
    target=x86_64-unknown-linux-gnu
    flags+=' -C target-feature=+crt-static'
  fi
  RUSTFLAGS="${RUSTFLAGS:-} $flags" cargo build --profile deploy --locked --no-default-features --target-dir target --target "$target"
  "target/$target/deploy/geo-events" package --out "$out/functions" --zip
}

mkdir -p "$out"
if [ -n "${GEO_EVENTS_PACKAGE:-}" ]; then
  cp "$GEO_EVENTS_PACKAGE" "$out/functions.zip"
else
  [ "$(uname -sm)" = 'Linux x86_64' ] || {
    echo 'The functions run on x86-64 Linux: build there, or name a package of a release in GEO_EVENTS_PACKAGE.' >&2
    exit 1
  }
  build_package
fi
sha256sum "$out/functions.zip" 2>/dev/null || shasum -a 256 "$out/functions.zip"

npm --prefix client ci --no-audit --no-fund
npm --prefix client run build
