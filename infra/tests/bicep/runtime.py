"""What only Azure knows: values of the form that it gives, for each property that the templates read."""

from . import builtins

_VALUES = {
    ("Microsoft.DocumentDB/databaseAccounts", "documentEndpoint"): "https://{name}.documents.azure.com:443/",
    ("Microsoft.SignalRService/signalR", "hostName"): "{name}.service.signalr.net",
    ("Microsoft.Storage/storageAccounts", "primaryEndpoints.blob"): "https://{name}.blob.core.windows.net/",
    ("Microsoft.Storage/storageAccounts", "primaryEndpoints.web"): "https://{name}.z22.web.core.windows.net/",
    ("Microsoft.Storage/storageAccounts", "secondaryEndpoints.web"):
        "https://{name}-secondary.z22.web.core.windows.net/",
    ("Microsoft.ManagedIdentity/userAssignedIdentities", "principalId"): "{guid}",
    ("Microsoft.ManagedIdentity/userAssignedIdentities", "clientId"): "{guid}",
    ("Microsoft.Cdn/profiles", "frontDoorId"): "{guid}",
    ("Microsoft.Cdn/profiles/afdEndpoints", "hostName"): "{name}-hash.z01.azurefd.net",
    ("Microsoft.Insights/components", "ConnectionString"):
        "InstrumentationKey={guid};IngestionEndpoint=https://region.in.applicationinsights.azure.com/",
    ("Microsoft.Web/sites", "defaultHostName"): "{name}.azurewebsites.net",
    ("Microsoft.Network/trafficmanagerprofiles", "dnsConfig.fqdn"): "{name}.trafficmanager.net",
}

# Properties that lead to others.
_BRANCHES = {path.split(".")[0] for _, path in _VALUES if "." in path}


class Properties:
    """`resource.properties`, and what is reached from there."""

    def __init__(self, resource, fail, path=""):
        self._resource = resource
        self._fail = fail
        self._path = path

    def member(self, name, node):
        path = f"{self._path}.{name}" if self._path else name
        template = _VALUES.get((self._resource.type, path))
        if template is not None:
            last = self._resource.name.split("/")[-1]
            return template.format(name=last, guid=builtins.guid(self._resource.id, path))
        if path in _BRANCHES:
            return Properties(self._resource, self._fail, path)
        raise self._fail(node, f"runtime.py has no {self._resource.type} {path}")
