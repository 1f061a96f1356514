"""Who may do what, and what is open to the world."""

import json
import re

from project import VARIANTS

_KEY = re.compile(r"\blist\w*Keys?\w*\(|\blistAccountSas|AccountKey=|SharedAccessSignature|AccessKey=", re.IGNORECASE)


def nothing_asks_for_a_key(project):
    for path in project.bicep_files:
        found = _KEY.search(path.read_text())
        assert not found, f"{path.name}: {found[0]}"
    for variant, deployed in project.every_variant().items():
        found = _KEY.search(json.dumps([r.body for r in deployed.resources]) + json.dumps(deployed.outputs))
        assert not found, f"{variant}: {found[0]}"


def keys_do_not_work(project):
    for deployed in project.every_variant().values():
        account = deployed.one("Microsoft.DocumentDB/databaseAccounts").properties
        assert account["disableLocalAuth"] is True
        assert account["disableKeyBasedMetadataWriteAccess"] is True
        for storage in deployed.of_type("Microsoft.Storage/storageAccounts"):
            assert storage.properties["allowSharedKeyAccess"] is False
        for service in deployed.of_type("Microsoft.SignalRService/signalR"):
            assert service.properties["disableLocalAuth"] is True
        for component in deployed.of_type("Microsoft.Insights/components"):
            assert component.properties["DisableLocalAuth"] is True
        for site in deployed.of_type("Microsoft.Web/sites"):
            policies = [
                r for r in deployed.of_type("Microsoft.Web/sites/basicPublishingCredentialsPolicies")
                if r.name.startswith(site.name + "/")
            ]
            assert {r.name.split("/")[1]: r.properties["allow"] for r in policies} == {"ftp": False, "scm": False}


def no_blob_is_public(project):
    for deployed in project.every_variant().values():
        for storage in deployed.of_type("Microsoft.Storage/storageAccounts"):
            assert storage.properties["allowBlobPublicAccess"] is False
        for container in deployed.of_type("Microsoft.Storage/storageAccounts/blobServices/containers"):
            assert container.properties["publicAccess"] == "None"


def traffic_is_encrypted(project):
    for deployed in project.every_variant().values():
        assert deployed.one("Microsoft.DocumentDB/databaseAccounts").properties["minimalTlsVersion"] == "Tls12"
        for storage in deployed.of_type("Microsoft.Storage/storageAccounts"):
            assert storage.properties["minimumTlsVersion"] == "TLS1_2"
            assert storage.properties["supportsHttpsTrafficOnly"] is True
        for site in deployed.of_type("Microsoft.Web/sites"):
            assert site.properties["httpsOnly"] is True
            assert site.properties["siteConfig"]["minTlsVersion"] == "1.2"
            assert site.properties["siteConfig"]["ftpsState"] == "Disabled"
        for route in deployed.of_type("Microsoft.Cdn/profiles/afdEndpoints/routes"):
            assert route.properties["httpsRedirect"] == "Enabled"
            assert route.properties["forwardingProtocol"] == "HttpsOnly"


def browsers_may_call_from_the_client_alone(project):
    for deployed in project.every_variant().values():
        client = deployed.outputs["CLIENT_URL"]
        for service in deployed.of_type("Microsoft.SignalRService/signalR"):
            assert service.properties["cors"]["allowedOrigins"] == [client]
        behind_front_door = bool(deployed.of_type("Microsoft.Cdn/profiles"))
        for site in deployed.of_type("Microsoft.Web/sites"):
            # Behind Front Door the client has the origin of the functions.
            allowed = site.properties["siteConfig"]["cors"]["allowedOrigins"]
            assert allowed == ([] if behind_front_door else [client])


def functions_take_requests_of_this_front_door_alone(project):
    deployed = project.deployed()
    for site in deployed.of_type("Microsoft.Web/sites"):
        config = site.properties["siteConfig"]
        (rule,) = config["ipSecurityRestrictions"]
        assert rule["action"] == "Allow"
        assert (rule["tag"], rule["ipAddress"]) == ("ServiceTag", "AzureFrontDoor.Backend")
        (front_door_id,) = rule["headers"]["x-azure-fdid"]
        assert re.fullmatch(r"[0-9a-f-]{36}", front_door_id)
        assert config["ipSecurityRestrictionsDefaultAction"] == "Deny"
        assert config["scmIpSecurityRestrictionsUseMain"] is False, "or packages could not be sent"


# Each identity of a stamp, and what it may do.
_ROLES = {
    ("storageBlobDataOwner", "Microsoft.Storage/storageAccounts"),
    ("storageTableDataContributor", "Microsoft.Storage/storageAccounts"),
    ("signalRServiceOwner", "Microsoft.SignalRService/signalR"),
    ("monitoringMetricsPublisher", "Microsoft.Insights/components"),
}


def _roles_by_principal(project, deployed):
    names = {role_id: name for name, role_id in json.loads(project.text("infra", "roles.json")).items()}
    by_principal = {}
    for r in deployed.of_type("Microsoft.Authorization/roleAssignments"):
        scope, _, _ = r.id.rpartition("/providers/Microsoft.Authorization/")
        kind = "/".join(scope.split("/providers/")[1].split("/")[:2])
        role = names[r.properties["roleDefinitionId"].rsplit("/", 1)[1]]
        by_principal.setdefault(r.properties["principalId"], set()).add((role, kind, scope))
    return by_principal


def an_identity_has_the_roles_it_needs_on_its_own_stamp(project):
    deployed = project.deployed()
    by_principal = _roles_by_principal(project, deployed)
    assert len(by_principal) == len(project.regions)
    for roles in by_principal.values():
        assert {(role, kind) for role, kind, _ in roles} == _ROLES
        groups = {scope.split("/resourceGroups/")[1].split("/")[0] for _, _, scope in roles}
        assert len(groups) == 1, "an identity has a role in another stamp"


def a_deployer_may_upload_what_is_uploaded_and_no_more(project):
    for variant in ("everything", "premium"):
        deployed = project.deployed(variant)
        roles = _roles_by_principal(project, deployed)[VARIANTS[variant]["principalId"]]
        assert {(role, kind) for role, kind, _ in roles} == {
            ("storageBlobDataContributor", "Microsoft.Storage/storageAccounts")
        }
        # The web client, and on Elastic Premium the package of each stamp.
        assert len(roles) == (1 + len(project.regions) if variant == "premium" else 1)


def an_identity_appends_to_the_database_and_keeps_its_leases(project):
    deployed = project.deployed()
    definition = deployed.one("Microsoft.DocumentDB/databaseAccounts/sqlRoleDefinitions")
    (permission,) = definition.properties["permissions"]
    actions = {action.rsplit("/", 1)[1] for action in permission["dataActions"]}
    assert actions == {"readMetadata", "executeQuery", "readChangeFeed", "create", "read", "upsert"}
    assert not any("*" in action for action in permission["dataActions"])

    by_principal = {}
    for r in deployed.of_type("Microsoft.DocumentDB/databaseAccounts/sqlRoleAssignments"):
        scope = r.properties["scope"].split("/dbs/")[1]
        role = r.properties["roleDefinitionId"].rsplit("/", 1)[1]
        by_principal.setdefault(r.properties["principalId"], {})[scope] = role
    assert len(by_principal) == len(project.regions)
    for roles in by_principal.values():
        assert roles == {
            "eventsDb": definition.name.split("/")[1],
            "eventsDb/colls/leases": "00000000-0000-0000-0000-000000000002",
        }


def rights_are_there_before_the_app_starts(project):
    stamp = project.text("infra", "modules", "stamp", "stamp.bicep")
    app = stamp[stamp.index("module app ") :]
    assert "dependsOn: [roles, data]" in app


def role_assignments_have_names_that_stay(project):
    first = [r.name for r in project.deployed().of_type("Microsoft.Authorization/roleAssignments")]
    assert len(set(first)) == len(first)
    assert all(re.fullmatch(r"[0-9a-f-]{36}", name) for name in first)


def outputs_hold_no_secret(project):
    allowed = {
        "AZURE_COSMOS_ENDPOINT",
        "AZURE_LOCATION",
        "CLIENT_STORAGE",
        "CLIENT_URL",
        "FUNCTIONS_PLAN",
        "STAMPS",
        "TRAFFIC_MANAGER_HOST",
    }
    for deployed in project.every_variant().values():
        assert set(deployed.outputs) == allowed
        assert set(deployed.outputs["STAMPS"][0]) == {"app", "region", "resourceGroup", "storage", "url"}
