"""What is checked: this repository, or a copy of it with a mistake."""

import json
import re
import shutil
from functools import cache, cached_property
from pathlib import Path

from bicep import deploy, parse

ROOT = Path(__file__).resolve().parents[2]

# What a copy needs: everything that a check reads.
_COPIED = (
    ".github",
    "README.md",
    "azure.yaml",
    "docs",
    "functions",
    "host.json",
    "infra",
    "local.settings.json",
    "src",
)

# Every way to deploy that makes a difference to what is deployed.
VARIANTS = {
    "default": {},
    "everything": {
        "principalId": "22222222-2222-2222-2222-222222222222",
        "zoneRedundantRegions": ["North Europe"],
        "drainedRegions": ["West US"],
        "lockData": True,
        "signalRSuffix": "b",
        "alertEmail": "operator@example.org",
        "otlpEndpoint": "http://collector.example.org:4318",
    },
    "premium": {
        "plan": "EP1",
        "principalId": "22222222-2222-2222-2222-222222222222",
        "zoneRedundantRegions": ["North Europe"],
    },
    "no entry": {"entry": "none", "cosmosBackup": "Periodic"},
    "traffic manager": {"entry": "trafficManager", "drainedRegions": ["West US"]},
}


class Deployed:
    """What one variant deploys."""

    def __init__(self, resources, outputs):
        self.resources = resources
        self.outputs = outputs

    def of_type(self, kind):
        return [r for r in self.resources if r.type == kind]

    def one(self, kind):
        (found,) = self.of_type(kind)
        return found

    def app_settings(self):
        """The settings of each region, by the region's name."""
        settings = [r.properties for r in self.of_type("Microsoft.Web/sites/config")]
        return {values["REGION"]: values for values in settings}


class Project:
    def __init__(self, root=ROOT):
        self.root = root
        self.infra = root / "infra"

    def copy_to(self, target):
        for name in _COPIED:
            source = self.root / name
            if source.is_dir():
                shutil.copytree(source, target / name, ignore=shutil.ignore_patterns(".venv", "__pycache__", "node_modules"))
            elif source.exists():
                shutil.copy(source, target / name)
        return Project(target)

    @cache
    def deployed(self, variant="default"):
        parameters = {"environmentName": "test", "location": "northeurope", **VARIANTS[variant]}
        return Deployed(*deploy(self.infra / "main.bicep", parameters))

    def every_variant(self):
        return {variant: self.deployed(variant) for variant in VARIANTS}

    @cached_property
    def bicep_files(self):
        return sorted(path.resolve() for path in self.infra.rglob("*.bicep"))

    def bicep_sources(self):
        return [parse(path) for path in self.bicep_files]

    @cached_property
    def regions(self):
        return json.loads((self.infra / "regions.json").read_text())["regions"]

    @cached_property
    def functions(self):
        """function.json of each function, by its name."""
        files = sorted((self.root / "functions").glob("*/function.json"))
        return {path.parent.name: json.loads(path.read_text()) for path in files}

    def bindings(self):
        return [(name, binding) for name, function in self.functions.items() for binding in function["bindings"]]

    def rust(self):
        """The function app's own code: what runs in Azure."""
        files = [p for p in sorted((self.root / "src").rglob("*.rs")) if "local" not in p.parts]
        return "\n".join(path.read_text() for path in files)

    def settings_read(self):
        """The settings that the table at the head of src/settings.rs names."""
        text = (self.root / "src" / "settings.rs").read_text()
        return set(re.findall(r"^//! \| `(\w+)`", text, re.MULTILINE))

    def text(self, *parts):
        return self.root.joinpath(*parts).read_text()
