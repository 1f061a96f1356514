"""A check that cannot fail checks nothing: for each one, a mistake that it has to find."""

import pytest

from bicep import BicepError
from checks import CHECKS
from project import Project

_BY_NAME = {check.__name__: check for check in CHECKS}

MAIN = "infra/main.bicep"
ACCOUNT = "infra/modules/data/account.bicep"
DATABASE = "infra/modules/data/database.bicep"
ACCESS = "infra/modules/data/access.bicep"
STAMP = "infra/modules/stamp/stamp.bicep"
APP = "infra/modules/stamp/app.bicep"
SETTINGS = "infra/modules/stamp/settings.bicep"
STORAGE = "infra/modules/stamp/storage.bicep"
SIGNALR = "infra/modules/stamp/signalr.bicep"
ROLES = "infra/modules/stamp/roles.bicep"
ROUTES = "infra/modules/entry/front-door-routes.bicep"
FRONT_DOOR = "infra/modules/entry/front-door.bicep"
TRAFFIC_MANAGER = "infra/modules/entry/traffic-manager.bicep"
CLIENT = "infra/modules/web/client.bicep"
ALERTS = "infra/modules/monitoring/alerts.bicep"
LAG = "infra/modules/monitoring/queries/feed-lag.kql"

# check, file, what is right, what is wrong
MISTAKES = [
    # checks_topology
    ("each_region_prefers_itself_and_knows_all_others", "infra/regions.json", '["North Europe", ', "["),
    ("the_account_writes_in_every_region_and_the_first_is_the_hub", ACCOUNT, "failoverPriority: i", "failoverPriority: 0"),
    ("each_stamp_has_the_preferred_locations_of_its_region", SETTINGS, "join(region.preferredLocations, ',')", "region.name"),
    ("each_stamp_lies_in_its_region_and_alone_in_its_group", MAIN, "    location: locations[i]\n    token", "    location: location\n    token"),
    ("the_regions_are_named_nowhere_else_in_infra", MAIN, "param location string", "param location string = 'West US'"),
    ("a_drained_region_gets_nothing_from_the_common_entry", ROUTES, "origin.drained ? 'Disabled' : 'Enabled'", "'Enabled'"),
    ("what_runs_on_a_laptop_has_the_same_regions", "local.settings.json", "North Europe,", ""),
    # checks_data
    ("every_bound_container_is_deployed_and_every_deployed_one_is_used", "functions/WriteEvent/function.json", '"containerName": "events"', '"containerName": "event"'),
    ("containers_have_the_partition_keys_that_the_code_relies_on", DATABASE, "'/deviceId'\n", "'/id'\n"),
    ("each_query_of_a_binding_is_served_by_an_index", DATABASE, "{ path: '/maxValue/?' }, ", ""),
    ("every_index_policy_decides_about_the_rest", DATABASE, "    indexed: everything\n", "    indexed: []\n"),
    ("leases_expire_only_when_they_say_so", DATABASE, "    ttl: keep\n", "    ttl: 60\n"),
    ("every_container_settles_conflicts_by_the_last_write_and_scales_by_itself", MAIN, "  leases: 1000\n", "  leases: 400\n"),
    ("each_feed_function_has_leases_of_its_own_in_every_region", "functions/Materialized/function.json", "Materialized-%REGION%", "Notifications-%REGION%"),
    ("consistency_and_backup_suit_many_writing_regions", ACCOUNT, "'Session'", "'Strong'"),
    ("zones_are_used_where_asked_for_and_nowhere_else", STAMP, "    zoneRedundant: zoneRedundant\n    instance", "    zoneRedundant: false\n    instance"),
    # checks_functions
    ("every_setting_that_the_code_reads_is_set", SETTINGS, "  LOG_FORMAT: 'json'\n", ""),
    ("the_table_of_settings_is_what_the_code_reads", "src/settings.rs", "//! | `RUST_LOG`", "//! | `GREETING` | | |\n//! | `RUST_LOG`"),
    ("every_setting_that_is_set_is_read", SETTINGS, "  LOG_FORMAT: 'json'\n", "  LOG_FORMAT: 'json'\n  GREETING: 'hello'\n"),
    ("flex_gets_no_setting_that_it_refuses", SETTINGS, "  LOG_FORMAT: 'json'\n", "  FUNCTIONS_WORKER_RUNTIME: 'custom'\n"),
    ("flex_runs_a_custom_handler_from_the_packages_of_its_stamp", APP, "'custom', version", "'node', version"),
    ("every_feed_function_always_runs", APP, ", 'function:Materialized'", ""),
    ("premium_has_no_flex_configuration", APP, "isFlex ? flexConfig : null", "flexConfig"),
    ("every_region_uses_the_global_address_of_the_account", MAIN, "    cosmosEndpoint: account.outputs.endpoint", "    cosmosEndpoint: 'https://${locations[i]}.documents.azure.com'"),
    ("every_region_has_a_signalr_of_its_own_and_pushes_every_event", SETTINGS, "NOTIFICATION_SCOPE: 'all'", "NOTIFICATION_SCOPE: 'origin'"),
    ("every_signalr_binding_uses_the_one_hub", "functions/negotiate/function.json", '"hubName": "events"', '"hubName": "event"'),
    ("each_event_is_materialized_in_the_region_where_it_was_born", SETTINGS, "MATERIALIZED_ORIGINS: region.name", "MATERIALIZED_ORIGINS: join(region.preferredLocations, ',')"),
    ("all_of_a_stamp_acts_as_one_identity", SETTINGS, "'ClientId=${clientId};", "'ClientId=${identityId};"),
    # checks_security
    ("nothing_asks_for_a_key", STORAGE, "output name string = account.name", "output name string = account.listKeys().keys[0].value"),
    ("keys_do_not_work", STORAGE, "allowSharedKeyAccess: false", "allowSharedKeyAccess: true"),
    ("no_blob_is_public", STORAGE, "publicAccess: 'None'", "publicAccess: 'Blob'"),
    ("traffic_is_encrypted", APP, "httpsOnly: true", "httpsOnly: false"),
    ("browsers_may_call_from_the_client_alone", SIGNALR, "allowedOrigins: [clientOrigin]", "allowedOrigins: ['*']"),
    ("functions_take_requests_of_this_front_door_alone", APP, "behindFrontDoor ? 'Deny' : 'Allow'", "'Allow'"),
    ("an_identity_has_the_roles_it_needs_on_its_own_stamp", ROLES, "  scope: insights\n", "  scope: storage\n"),
    ("a_deployer_may_upload_what_is_uploaded_and_no_more", MAIN, "plan == 'EP1' ? principalId : ''", "principalId"),
    ("an_identity_appends_to_the_database_and_keeps_its_leases", DATABASE, "containers/items/upsert'", "containers/items/*'"),
    ("rights_are_there_before_the_app_starts", STAMP, "dependsOn: [roles, data]", "dependsOn: [roles]"),
    ("role_assignments_have_names_that_stay", ROLES, "guid(storage.id, principalId, roleIds.storageTableDataContributor)", "guid(storage.id, principalId, roleIds.storageBlobDataOwner)"),
    ("outputs_hold_no_secret", MAIN, "output FUNCTIONS_PLAN string = plan", "output DEPLOYER string = principalId"),
    # checks_entry
    ("front_door_probes_the_health_of_every_region", ROUTES, "'/api/health'", "'/'"),
    ("the_probe_is_a_function_that_answers_get", "functions/health/function.json", '"get"', '"head"'),
    ("each_region_has_a_path_of_its_own", ROUTES, "    originPath: '/'\n", "    originPath: '/api'\n"),
    ("answers_of_functions_are_not_cached", ROUTES, "    patternsToMatch: ['/api/*']\n", "    patternsToMatch: ['/api/*']\n    cacheConfiguration: {}\n"),
    ("front_door_limits_the_writes_of_one_address", FRONT_DOOR, "mode: 'Prevention'", "mode: 'Detection'"),
    ("traffic_manager_probes_each_region_by_its_own_name", TRAFFIC_MANAGER, "value: endpoint.hostName", "value: name"),
    ("without_front_door_there_is_none", MAIN, "frontDoorId: hasFrontDoor ? frontDoor!.outputs.frontDoorId : ''", "frontDoorId: 'any'"),
    ("the_client_is_served_from_two_places", CLIENT, "= [primary, secondary]", "= [primary, primary]"),
    # checks_monitoring
    ("every_query_is_understood_by_kusto", "infra/modules/monitoring/workbook.json", "countif(Success)", "countif(Succes)"),
    ("each_query_belongs_to_an_alert_and_each_alert_to_the_workspace", ALERTS, "loadTextContent('queries/feed-lag.kql')", "loadTextContent('queries/quarantine.kql')"),
    ("each_line_that_a_query_looks_for_is_logged", LAG, 'has "feed batch"', 'has "a feed batch"'),
    ("each_function_that_a_query_names_exists", "infra/modules/monitoring/queries/feed-stalled.kql", '"WriteEvent"', '"WriteEvents"'),
    ("requests_and_exceptions_are_not_sampled_away", "host.json", "Request;Exception", "Trace"),
    ("throttling_and_availability_are_watched", ALERTS, "values: ['429']", "values: ['404']"),
    ("health_is_looked_at_from_outside", "infra/modules/monitoring/availability-test.bicep", "      RequestUrl: '${url}/api/health'", "      RequestUrl: url"),
    ("every_alert_reaches_the_same_people", "infra/modules/monitoring/query-alert.bicep", "[actionGroupId]", "[]"),
    ("what_matters_sends_its_logs_to_the_workspace", SIGNALR, "  scope: signalR\n", ""),
    ("the_workbook_can_be_read_and_is_about_this_account", "infra/modules/monitoring/workbook.bicep", "'__COSMOS_ACCOUNT__'", "'__ACCOUNT__'"),
    # checks_files
    ("every_bicep_file_is_understood", STORAGE, "output name string = account.name", "output name string = = account.name"),
    ("every_way_to_deploy_can_be_computed", MAIN, "    plan: plan\n", "    plans: plan\n"),
    ("every_parameter_has_a_description", STORAGE, "@description('Tags of the account.')\n", ""),
    ("everything_declared_is_used", STORAGE, "  tags: tags\n", "  tags: {}\n"),
    ("every_module_output_is_used", STORAGE, "output name string = account.name", "output name string = account.name\noutput id string = account.id"),
    ("each_type_has_one_stable_version", STORAGE, "'Microsoft.Storage/storageAccounts/blobServices/containers@2025-08-01'", "'Microsoft.Storage/storageAccounts/blobServices/containers@2025-06-01'"),
    ("every_property_was_looked_up", STORAGE, "minimumTlsVersion:", "minimalTlsVersion:"),
    ("names_fit", MAIN, "name: 'web${token}'", "name: 'web-${token}'"),
    ("azd_finds_its_resources", MAIN, "'azd-env-name'", "'environment'"),
    ("parameters_file_and_main_agree", "infra/main.parameters.json", '"plan"', '"plans"'),
    ("hooks_exist_run_and_read_only_outputs", "infra/hooks/deploy.sh", "$CLIENT_URL", "$CLIENT_ADDRESS"),
    ("windows_hands_on_what_the_hooks_read", "infra/hooks/bash.ps1", "STAMPS:", ""),
    ("workflows_are_pinned_and_hold_no_secret", ".github/workflows/ci.yml", "actions/checkout@v4", "actions/checkout@main"),
    ("documents_name_every_resource_type", "docs/resources.md", "`Microsoft.Web/sites`", "`Microsoft.Web/site`"),
    ("links_between_documents_lead_somewhere", "docs/deploy.md", "](operations.md", "](operation.md"),
    ("no_finding_of_checkov_is_left", STORAGE, "supportsHttpsTrafficOnly: true", "supportsHttpsTrafficOnly: false"),
]


@pytest.mark.parametrize(("name", "file", "right", "wrong"), MISTAKES, ids=[m[0] for m in MISTAKES])
def test_a_mistake_is_found(name, file, right, wrong, tmp_path):
    broken = Project().copy_to(tmp_path)
    path = tmp_path / file
    text = path.read_text()
    assert right in text, f"{file} has changed: name another mistake"
    path.write_text(text.replace(right, wrong))
    with pytest.raises((AssertionError, BicepError, KeyError)):
        _BY_NAME[name](broken)


def test_a_copy_without_a_mistake_passes(tmp_path):
    whole = Project().copy_to(tmp_path)
    slow = {"no_finding_of_checkov_is_left"}
    for name, check in _BY_NAME.items():
        if name not in slow:
            check(whole)


def test_each_check_has_a_mistake():
    assert {mistake[0] for mistake in MISTAKES} == set(_BY_NAME)
