"""The function apps: their settings, and their plan."""

import json
import re

# Settings that another reads than our code. {connection} is a connection that function.json names.
_HOST = {
    "APPLICATIONINSIGHTS_AUTHENTICATION_STRING",
    "APPLICATIONINSIGHTS_CONNECTION_STRING",
    "AzureWebJobsStorage__accountName",
    "AzureWebJobsStorage__clientId",
    "AzureWebJobsStorage__credential",
}
_IDENTITY = {
    "cosmosDB": {"__accountEndpoint", "__clientId", "__credential"},
    "signalR": {"__clientId", "__credential", "__serviceUri"},
}
_PREMIUM = {
    "FUNCTIONS_EXTENSION_VERSION",
    "FUNCTIONS_WORKER_RUNTIME",
    "WEBSITE_RUN_FROM_PACKAGE",
    "WEBSITE_RUN_FROM_PACKAGE_BLOB_MI_RESOURCE_ID",
}

# Settings that our code reads and a stamp does not set, and why.
_NOT_SET = {
    "FUNCTIONS_CUSTOMHANDLER_PORT": "the Functions host gives it to its handler",
    "CosmosDBConnection": "a connection string has a key; CosmosDBConnection__accountEndpoint takes its place",
}

# Settings that the code reads by OpenTelemetry's SDK, and a stamp sets when it is told a collector.
_TELEMETRY = {"OTEL_EXPORTER_OTLP_ENDPOINT"}

# Flex Consumption refuses these or ignores them.
_NOT_ON_FLEX = _PREMIUM | {
    "ENABLE_ORYX_BUILD",
    "FUNCTIONS_WORKER_RUNTIME_VERSION",
    "SCM_DO_BUILD_DURING_DEPLOYMENT",
    "TZ",
    "WEBSITE_CONTENTAZUREFILECONNECTIONSTRING",
    "WEBSITE_CONTENTSHARE",
    "WEBSITE_MAX_DYNAMIC_APPLICATION_SCALE_OUT",
    "WEBSITE_MOUNT_ENABLED",
    "WEBSITE_TIME_ZONE",
}


def _connections(project):
    """The settings that the bindings need: names of connections, with what identities add to them."""
    found = set()
    for _, binding in project.bindings():
        if binding["type"].startswith("cosmosDB"):
            found |= {binding["connection"] + part for part in _IDENTITY["cosmosDB"]}
        elif binding["type"].startswith("signalR"):
            found |= {binding["connectionStringSetting"] + part for part in _IDENTITY["signalR"]}
    return found


def _placeholders(project):
    return set(re.findall(r"%(\w+)%", json.dumps(project.functions)))


def every_setting_that_the_code_reads_is_set(project):
    read = project.settings_read()
    assert {"REGION", "PreferredLocations", "CosmosDBConnection__accountEndpoint"} <= read
    for deployed in project.every_variant().values():
        for settings in deployed.app_settings().values():
            assert read - set(_NOT_SET) <= set(settings)
            assert _placeholders(project) | _connections(project) | _HOST <= set(settings)
    for name in _NOT_SET:
        assert name in read, f"{name} is excused and not read"


def the_table_of_settings_is_what_the_code_reads(project):
    code = project.text("src", "settings.rs") + project.text("src", "logging.rs")
    code = "\n".join(line for line in code.splitlines() if not line.lstrip().startswith("//"))
    for name in project.settings_read():
        assert f'"{name}"' in code, f"{name} is documented and not read"


def every_setting_that_is_set_is_read(project):
    known = project.settings_read() | _placeholders(project) | _connections(project) | _HOST
    for variant, deployed in project.every_variant().items():
        for settings in deployed.app_settings().values():
            extra = set(settings) - known
            assert extra == {"premium": _PREMIUM, "everything": _TELEMETRY}.get(variant, set())
    table = project.text("src", "telemetry.rs")
    for name in _TELEMETRY:
        assert f"//! | `{name}` |" in table, f"{name} is set and not documented"


def flex_gets_no_setting_that_it_refuses(project):
    for settings in project.deployed().app_settings().values():
        assert not set(settings) & _NOT_ON_FLEX


def flex_runs_a_custom_handler_from_the_packages_of_its_stamp(project):
    deployed = project.deployed("everything")
    containers = deployed.of_type("Microsoft.Storage/storageAccounts/blobServices/containers")
    for site in deployed.of_type("Microsoft.Web/sites"):
        config = site.properties["functionAppConfig"]
        assert config["runtime"] == {"name": "custom", "version": "1.0"}
        storage = config["deployment"]["storage"]
        (identity,) = site.body["identity"]["userAssignedIdentities"]
        assert storage["authentication"] == {
            "type": "UserAssignedIdentity",
            "userAssignedIdentityResourceId": identity,
        }
        (packages,) = [c for c in containers if c.group == site.group]
        account, _, container = packages.name.split("/")
        assert storage["value"] == f"https://{account}.blob.core.windows.net/{container}"
    for plan in deployed.of_type("Microsoft.Web/serverfarms"):
        assert plan.body["sku"] == {"name": "FC1", "tier": "FlexConsumption"}
        assert plan.properties["reserved"] is True


def every_feed_function_always_runs(project):
    feeds = {name for name, binding in project.bindings() if binding["type"] == "cosmosDBTrigger"}
    for site in project.deployed("everything").of_type("Microsoft.Web/sites"):
        groups = site.properties["functionAppConfig"]["scaleAndConcurrency"]["alwaysReady"]
        assert {group["name"] for group in groups} == {"http"} | {f"function:{name}" for name in feeds}
        least = 2 if site.body["location"] == "northeurope" else 1
        assert all(group["instanceCount"] >= least for group in groups)


def premium_has_no_flex_configuration(project):
    deployed = project.deployed("premium")
    for site in deployed.of_type("Microsoft.Web/sites"):
        assert site.properties["functionAppConfig"] is None
        assert site.properties["siteConfig"]["use32BitWorkerProcess"] is False
    for settings in deployed.app_settings().values():
        assert settings["FUNCTIONS_WORKER_RUNTIME"] == "custom"
        assert settings["WEBSITE_RUN_FROM_PACKAGE"].startswith("https://")


def every_region_uses_the_global_address_of_the_account(project):
    addresses = {s["CosmosDBConnection__accountEndpoint"] for s in project.deployed().app_settings().values()}
    account = project.deployed().one("Microsoft.DocumentDB/databaseAccounts")
    assert addresses == {f"https://{account.name}.documents.azure.com:443/"}


def every_region_has_a_signalr_of_its_own_and_pushes_every_event(project):
    for deployed in project.every_variant().values():
        settings = deployed.app_settings().values()
        services = deployed.of_type("Microsoft.SignalRService/signalR")
        addresses = [s["AzureSignalRConnectionString__serviceUri"] for s in settings]
        assert addresses == [f"https://{service.name}.service.signalr.net" for service in services]
        assert len(set(addresses)) == len(project.regions)
        assert {s["NOTIFICATION_SCOPE"] for s in settings} == {"all"}
        for service in services:
            assert {"flag": "ServiceMode", "value": "Serverless"} in service.properties["features"]


def every_signalr_binding_uses_the_one_hub(project):
    hubs = {binding["hubName"] for _, binding in project.bindings() if binding["type"].startswith("signalR")}
    assert hubs == {re.search(r'HUB: &str = "(\w+)"', project.text("src", "names.rs"))[1]}
    for service in project.deployed().of_type("Microsoft.SignalRService/signalR"):
        assert "upstream" not in service.properties, "nothing comes from browsers"


def each_event_is_materialized_in_the_region_where_it_was_born(project):
    for region, settings in project.deployed().app_settings().items():
        assert settings["MATERIALIZED_ORIGINS"] == region


def all_of_a_stamp_acts_as_one_identity(project):
    for site in project.deployed().of_type("Microsoft.Web/sites"):
        (settings,) = [
            r.properties
            for r in project.deployed().of_type("Microsoft.Web/sites/config")
            if r.group == site.group
        ]
        ids = {value for name, value in settings.items() if name.endswith("__clientId")}
        assert len(ids) == 1
        assert settings["APPLICATIONINSIGHTS_AUTHENTICATION_STRING"] == f"ClientId={ids.pop()};Authorization=AAD"
