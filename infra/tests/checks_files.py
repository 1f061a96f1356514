"""The files themselves: Bicep, the azd project, hooks, workflows, documents."""

import json
import re
import subprocess
import sys
from pathlib import Path

import looked_up
import yaml

_PREVIEW = {"Microsoft.Insights/diagnosticSettings"}


def every_bicep_file_is_understood(project):
    sources = project.bicep_sources()
    assert len(sources) > 15


def every_way_to_deploy_can_be_computed(project):
    counts = {variant: len(deployed.resources) for variant, deployed in project.every_variant().items()}
    assert min(counts.values()) > 50
    for deployed in project.every_variant().values():
        ids = [r.id for r in deployed.resources]
        assert len(set(ids)) == len(ids), "a resource is deployed twice"


def every_parameter_has_a_description(project):
    for source in project.bicep_sources():
        for declaration in source.of_kind("param").values():
            said = [d.text.decode() for d in declaration.decorators if d.text.startswith(b"@description(")]
            assert said, f"{source.path.name}: {declaration.name}"


def everything_declared_is_used(project):
    for source in project.bicep_sources():
        used = source.names_used()
        for declaration in source.declarations:
            if declaration.kind in ("param", "var"):
                assert declaration.name in used, f"{source.path.name}: {declaration.name} is not used"


def every_module_output_is_used(project):
    sources = project.bicep_sources()
    read = {source.path: set() for source in sources}
    for source in sources:
        for name, declaration in source.of_kind("module").items():
            target = declaration.node.named_children[1].text.decode().strip("'")
            use = rf"\b{name}(?:\[\w+\])?!?\.outputs\.(\w+)"
            read[(source.path.parent / target).resolve()] |= set(re.findall(use, source.path.read_text()))
    for source in sources:
        if source.path.name != "main.bicep":
            unused = set(source.of_kind("output")) - read[source.path]
            assert not unused, f"{source.path.name}: nothing reads {unused}"


def each_type_has_one_stable_version(project):
    versions = {}
    for deployed in project.every_variant().values():
        for r in deployed.resources:
            provider = r.type.split("/")[0]
            group = r.type if provider in ("Microsoft.Insights", "Microsoft.Network") else provider
            versions.setdefault((group, r.type in _PREVIEW), set()).add(r.api_version)
            assert r.type in _PREVIEW or "preview" not in r.api_version, r.type
    versions.pop(("Microsoft.Authorization", False))  # Locks and role assignments are two services.
    assert all(len(found) == 1 for found in versions.values()), versions


def every_property_was_looked_up(project):
    listed = set(Path(__file__).with_name("properties.txt").read_text().splitlines()[1:])
    found = looked_up.paths(project)
    assert found <= listed, f"look these up, then list them (see looked_up.py): {sorted(found - listed)}"
    assert listed <= found, f"nothing sets these any more: {sorted(listed - found)}"


def names_fit(project):
    limits = {
        "Microsoft.DocumentDB/databaseAccounts": r"[a-z0-9-]{3,44}",
        "Microsoft.Storage/storageAccounts": r"[a-z0-9]{3,24}",
        "Microsoft.SignalRService/signalR": r"[a-zA-Z][a-zA-Z0-9-]{2,62}",
        "Microsoft.Web/sites": r"[a-zA-Z0-9-]{2,60}",
        "Microsoft.Resources/resourceGroups": r"[\w.()-]{1,90}",
        "Microsoft.Network/FrontDoorWebApplicationFirewallPolicies": r"[a-zA-Z][a-zA-Z0-9]{0,127}",
        "Microsoft.Cdn/profiles/afdEndpoints": r"[a-zA-Z0-9][a-zA-Z0-9-]{0,44}[a-zA-Z0-9]",
    }
    for deployed in project.every_variant().values():
        for r in deployed.resources:
            if r.type in limits:
                assert re.fullmatch(limits[r.type], r.name.split("/")[-1]), r.name


def azd_finds_its_resources(project):
    for deployed in project.every_variant().values():
        for group in deployed.of_type("Microsoft.Resources/resourceGroups"):
            assert group.body["tags"]["azd-env-name"] == "test"
        groups = {group.name for group in deployed.of_type("Microsoft.Resources/resourceGroups")}
        assert {r.group for r in deployed.resources} - {None} == groups, "azd down deletes these groups"


def parameters_file_and_main_agree(project):
    given = json.loads(project.text("infra", "main.parameters.json"))["parameters"]
    (main,) = [s for s in project.bicep_sources() if s.path.name == "main.bicep"]
    declared = main.of_kind("param")
    assert set(given) <= set(declared)
    without_default = {name for name, d in declared.items() if len(d.node.named_children) < 3}
    assert without_default <= set(given)
    variables = set(re.findall(r"\$\{(\w+)", json.dumps(given)))
    documented = project.text("docs", "deploy.md")
    for variable in variables - {"AZURE_ENV_NAME", "AZURE_LOCATION", "AZURE_PRINCIPAL_ID", "AZURE_PRINCIPAL_TYPE"}:
        assert f"`{variable}`" in documented, f"docs/deploy.md does not explain {variable}"


def hooks_exist_run_and_read_only_outputs(project):
    azure = yaml.safe_load(project.text("azure.yaml"))
    assert azure["infra"] == {"provider": "bicep", "path": "infra", "module": "main"}
    scripts = set()
    for hook in azure["hooks"].values():
        for system in ("posix", "windows"):
            words = [word.removeprefix("./") for word in hook[system]["run"].split()]
            scripts |= {word for word in words if word.startswith("infra/hooks/")}
    assert {"infra/hooks/build.sh", "infra/hooks/deploy.sh", "infra/hooks/bash.ps1"} <= scripts
    for script in scripts:
        assert (project.root / script).exists(), script
    given = set(project.deployed().outputs) | {"AZURE_SUBSCRIPTION_ID"}
    for path in _hooks(project):
        subprocess.run(["bash", "-n", path], check=True, timeout=30)
        assert path.stat().st_mode & 0o111, f"{path.name} cannot be run"
        unknown = _variables_read(path) - given - {"GEO_EVENTS_PACKAGE", "GEO_EVENTS_PATIENCE"}
        assert not unknown, f"{path.name} reads {unknown}"


def _hooks(project):
    return sorted((project.infra / "hooks").glob("*.sh"))


def _variables_read(path):
    return set(re.findall(r"\$\{?([A-Z][A-Z_]{2,})\b", path.read_text())) - {"BASH_SOURCE", "RUSTFLAGS"}


def windows_hands_on_what_the_hooks_read(project):
    wrapper = project.text("infra", "hooks", "bash.ps1")
    handed_on = set(re.search(r"WSLENV = '([^']+)'", wrapper)[1].replace("/p", "").split(":"))
    read = {"STAMPS"}.union(*(_variables_read(path) for path in _hooks(project)))
    assert read - {"GEO_EVENTS_PATIENCE"} == handed_on


def workflows_are_pinned_and_hold_no_secret(project):
    workflows = sorted((project.root / ".github" / "workflows").glob("*.yml"))
    assert {path.stem for path in workflows} == {"ci", "deploy", "release"}
    for path in workflows:
        content = yaml.safe_load(path.read_text())
        assert "permissions" in content, f"{path.name} takes the rights that it is given"
        for job in content["jobs"].values():
            for step in job["steps"]:
                if "uses" in step:
                    assert re.search(r"@(v\d+|stable)$", step["uses"]), f"{path.name}: {step['uses']}"
        assert not re.search(r"secrets\.(?!GITHUB_TOKEN)", path.read_text()), f"{path.name} needs a secret"


def documents_name_every_resource_type(project):
    table = project.text("docs", "resources.md")
    for deployed in project.every_variant().values():
        for r in deployed.resources:
            assert f"`{r.type}`" in table, f"docs/resources.md does not name {r.type}"
    deployed_types = {r.type for d in project.every_variant().values() for r in d.resources}
    for name in re.findall(r"^\| `(Microsoft\.[^`]+)`", table, re.MULTILINE):
        assert name in deployed_types, f"docs/resources.md names {name}, which is not deployed"


def links_between_documents_lead_somewhere(project):
    for path in [*sorted((project.root / "docs").glob("*.md")), project.infra / "README.md"]:
        for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", path.read_text()):
            other = path.parent / target if target else path
            assert other.exists(), f"{path.name} links to {target}"
            if anchor:
                headings = re.findall(r"^#+ (.+)$", other.read_text(), re.MULTILINE)
                slugs = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
                assert anchor in slugs, f"{path.name} links to {target}#{anchor}"


def no_finding_of_checkov_is_left(project):
    checkov = Path(sys.executable).with_name("checkov")
    command = [checkov, "--directory", project.infra, "--framework", "bicep", "--skip-download", "-o", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    report = json.loads(done.stdout)
    assert report["summary"]["parsing_errors"] == 0, report["results"]["parsing_errors"]
    failed = [f"{c['check_id']} {c['file_path']} {c['resource']}" for c in report["results"]["failed_checks"]]
    assert not failed, failed
    assert report["summary"]["passed"] > 0
    for check in report["results"]["skipped_checks"]:
        assert len(check["check_result"]["suppress_comment"]) > 10, f"{check['check_id']} is skipped without a reason"
