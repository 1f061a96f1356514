"""infra/hooks/deploy.sh, with stand-ins for Azure: what it sends, in which order, and when it stops."""

import json
import os
import platform
import subprocess
import zipfile

import pytest

from project import Project

STAMPS = [
    {
        "region": name,
        "resourceGroup": f"rg-{place}",
        "app": f"func-{place}",
        "storage": f"st{place}",
        "url": f"https://entry.example/{place}",
    }
    for name, place in (("West US", "westus"), ("North Europe", "northeurope"), ("Southeast Asia", "southeastasia"))
]

# Writes down how it was called, and fails where FAIL says so.
STAND_IN = r"""#!/usr/bin/env bash
echo "$(basename "$0") $*" >>"$LOG"
[[ "$*" != *upload-batch*no-cache* ]] || cp "$(grep -oP '(?<=--source )\S+' <<<"$*")/regions.json" "$LOG.regions.json"
[ -z "$FAIL" ] || [[ "$(basename "$0") $*" != *$FAIL* ]]
"""

pytestmark = pytest.mark.skipif(
    (platform.system(), platform.machine()) != ("Linux", "x86_64"), reason="the package runs on x86-64 Linux"
)


@pytest.fixture
def deploy(tmp_path):
    root = Project().copy_to(tmp_path / "root").root
    (root / "client/dist/assets").mkdir(parents=True)
    (root / "client/dist/index.html").write_text("<html>")
    (root / "target/azure").mkdir(parents=True)
    entry = zipfile.ZipInfo("geo-events")
    entry.external_attr = 0o755 << 16
    with zipfile.ZipFile(root / "target/azure/functions.zip", "w") as package:
        package.writestr(entry, STAND_IN)
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("az", "curl"):
        (tools / name).write_text(STAND_IN)
        (tools / name).chmod(0o755)

    def run(plan="FC1", fail=""):
        log = tmp_path / "log"
        log.write_text("")
        environment = {
            **os.environ,
            "PATH": f"{tools}:{os.environ['PATH']}",
            "LOG": str(log),
            "FAIL": fail,
            "GEO_EVENTS_PATIENCE": "0",
            "AZURE_SUBSCRIPTION_ID": "the-subscription",
            "FUNCTIONS_PLAN": plan,
            "STAMPS": json.dumps(STAMPS),
            "CLIENT_STORAGE": "webstorage",
            "CLIENT_URL": "https://entry.example",
        }
        done = subprocess.run(
            [root / "infra/hooks/deploy.sh"], env=environment, capture_output=True, text=True, timeout=120
        )
        regions = tmp_path / "log.regions.json"
        return done, log.read_text().splitlines(), json.loads(regions.read_text()) if regions.exists() else None

    return run


def test_one_region_after_the_other_then_all_together_then_the_client(deploy):
    done, calls, regions = deploy()
    assert done.returncode == 0, done.stderr
    expected = []
    for stamp in STAMPS:
        expected += [
            f"az functionapp deployment source config-zip --resource-group {stamp['resourceGroup']} --name {stamp['app']}",
            "curl ",
            f"geo-events smoke --url {stamp['url']}",
        ]
    expected.append("geo-events smoke " + " ".join(f"--url {stamp['url']}" for stamp in STAMPS))
    assert len(calls) == len(expected) + 2
    for call, start in zip(calls, expected):
        assert call.startswith(start)
    assets, pages = calls[len(expected) :]
    assert all("--account-name webstorage --destination $web" in call for call in (assets, pages))
    assert "immutable" in assets and "--source client/dist/assets --destination-path assets" in assets
    assert "--content-cache-control no-cache" in pages, "the page comes after what it names"
    assert all("--subscription the-subscription" in call for call in calls if call.startswith("az "))
    assert regions == {"regions": [{"name": s["region"], "functions": s["url"]} for s in STAMPS]}


def test_a_region_that_fails_ends_the_roll_out(deploy):
    done, calls, _ = deploy(fail="smoke --url https://entry.example/northeurope")
    assert done.returncode != 0
    assert any("func-northeurope" in call for call in calls)
    assert not any("southeastasia" in call or "upload-batch" in call for call in calls)


def test_what_takes_time_in_azure_is_tried_again(deploy):
    done, calls, _ = deploy(fail="config-zip --resource-group rg-westus")
    assert done.returncode != 0
    assert len(calls) == 20


def test_premium_gets_its_package_as_a_blob(deploy):
    done, calls, _ = deploy(plan="EP1")
    assert done.returncode == 0, done.stderr
    assert calls[0].startswith("az storage blob upload --auth-mode login --account-name stwestus")
    assert calls[1].startswith("az functionapp restart --resource-group rg-westus")
    done, calls, _ = deploy(plan="EP1", fail="blob upload --auth")
    assert done.returncode != 0
    assert not any("restart" in call for call in calls)
