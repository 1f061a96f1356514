"""The properties that the templates set, by resource type.

A misspelt property is not refused by anything that runs without Azure, so each one is looked up once in the reference of
its type (https://learn.microsoft.com/azure/templates) and then listed in properties.txt. After a look, list it:

    .venv/bin/python looked_up.py >properties.txt
"""

from project import Project

# Objects whose keys are data.
_MAPS = {"identity.userAssignedIdentities", "tags"}


def paths(project):
    found = set()
    for deployed in project.every_variant().values():
        for r in deployed.resources:
            # App settings are checked against the code.
            if r.type != "Microsoft.Web/sites/config":
                found |= {f"{r.type}@{r.api_version} {path}" for path in _of(r.body, "")}
    return found


def _of(value, path):
    if path in _MAPS:
        yield path
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _of(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        for item in value:
            yield from _of(item, path)
    else:
        yield path


if __name__ == "__main__":
    print("# Last compared with the type definitions of Azure/bicep-types-az of August 2026. See looked_up.py.")
    print("\n".join(sorted(paths(Project()))))
