"""infra/hooks/build.sh, with stand-ins for the compilers: what it asks of them."""

import os
import subprocess

import pytest

from project import Project

CARGO = """#!/usr/bin/env bash
echo "cargo $* RUSTFLAGS=${RUSTFLAGS# }" >>"$LOG"
while [ $# -gt 0 ]; do
  case "$1" in --profile) profile=$2 ;; --target) target=$2 ;; esac
  shift
done
mkdir -p "target/$target/$profile"
cp "$TOOLS/geo-events" "target/$target/$profile/"
"""
GEO_EVENTS = """#!/usr/bin/env bash
echo "geo-events $*" >>"$LOG"
echo package >"$3.zip"
"""
NPM = '#!/usr/bin/env bash\necho "npm $*" >>"$LOG"\n'
RUSTC = '#!/usr/bin/env bash\necho "$TOOLS/sysroot"\n'
UNAME = "#!/usr/bin/env bash\necho ${SYSTEM:-Linux x86_64}\n"
MUSL = "x86_64-unknown-linux-musl"


@pytest.fixture
def build(tmp_path):
    root = Project().copy_to(tmp_path / "root").root
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, text in {"cargo": CARGO, "geo-events": GEO_EVENTS, "npm": NPM, "rustc": RUSTC, "uname": UNAME}.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)

    def run(musl=False, **more):
        if musl:
            (tools / "sysroot/lib/rustlib" / MUSL).mkdir(parents=True)
            (tools / "musl-gcc").write_text("#!/bin/sh\n")
            (tools / "musl-gcc").chmod(0o755)
        log = tmp_path / "log"
        log.write_text("")
        environment = {
            "HOME": str(tmp_path),
            "LOG": str(log),
            "TOOLS": str(tools),
            "PATH": f"{tools}:{os.environ['PATH']}",
            **more,
        }
        done = subprocess.run(
            [root / "infra/hooks/build.sh"], env=environment, capture_output=True, text=True, timeout=60
        )
        package = root / "target/azure/functions.zip"
        return done, log.read_text().splitlines(), package.read_text() if package.exists() else None

    return run


def test_the_executable_is_lean_and_static(build):
    done, calls, package = build(musl=True)
    assert done.returncode == 0, done.stderr
    flags = "RUSTFLAGS=-C relocation-model=static"
    cargo = f"cargo build --profile deploy --locked --no-default-features --target-dir target --target {MUSL} {flags}"
    assert calls[:2] == [cargo, "geo-events package --out target/azure/functions --zip"]
    assert calls[-1] == "npm --prefix client run build"
    assert package == "package\n"


def test_without_musl_glibc_is_linked_in(build):
    done, calls, _ = build()
    assert done.returncode == 0, done.stderr
    assert "--target x86_64-unknown-linux-gnu RUSTFLAGS=-C relocation-model=static -C target-feature=+crt-static" in calls[0]


def test_a_finished_package_needs_no_rust(build, tmp_path):
    (tmp_path / "release.zip").write_text("release\n")
    done, calls, package = build(GEO_EVENTS_PACKAGE=str(tmp_path / "release.zip"), SYSTEM="Darwin arm64")
    assert done.returncode == 0, done.stderr
    assert package == "release\n"
    assert not any(call.startswith("cargo") for call in calls)


def test_another_system_is_told_what_to_do(build):
    done, calls, package = build(SYSTEM="Darwin arm64")
    assert done.returncode == 1
    assert "GEO_EVENTS_PACKAGE" in done.stderr
    assert not calls and package is None
