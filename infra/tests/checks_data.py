"""The data: what the functions bind to is there."""

import re

# Where the rest of the code takes the partition keys from.
_PARTITION_KEYS = {"events": "/id", "materialized": "/deviceId", "leases": "/id", "quarantine": "/id"}


def _containers(project):
    found = project.deployed().of_type("Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers")
    return {r.name.split("/")[-1]: r.properties["resource"] for r in found}


def every_bound_container_is_deployed_and_every_deployed_one_is_used(project):
    bound, databases = {"leases"}, set()
    for _, binding in project.bindings():
        if binding["type"].startswith("cosmosDB"):
            bound.add(binding["containerName"])
            databases.add(binding["databaseName"])
            bound.add(binding.get("leaseContainerName", "leases"))
    assert set(_containers(project)) == bound
    database = project.deployed().one("Microsoft.DocumentDB/databaseAccounts/sqlDatabases")
    assert databases == {database.name.split("/")[-1]} == {database.properties["resource"]["id"]}


def containers_have_the_partition_keys_that_the_code_relies_on(project):
    containers = _containers(project)
    for name, path in _PARTITION_KEYS.items():
        assert containers[name]["partitionKey"]["paths"] == [path], name
        assert containers[name]["id"] == name
    # The emulator's containers are made by the code itself, from the same paths.
    pairs = re.findall(r"\((EVENTS|MATERIALIZED|LEASES|QUARANTINE), \"(/\w+)\"\)", project.text("src", "provision.rs"))
    assert {name.lower(): path for name, path in pairs} == _PARTITION_KEYS


def each_query_of_a_binding_is_served_by_an_index(project):
    containers = _containers(project)
    for function, binding in project.bindings():
        policy = containers.get(binding.get("containerName"), {}).get("indexingPolicy")
        for path in re.findall(r"\bc\.(\w+)", binding.get("sqlQuery", "")):
            included = {entry["path"] for entry in policy["includedPaths"]}
            assert included & {f"/{path}/?", "/*"}, f"{function} asks for {path}"


def every_index_policy_decides_about_the_rest(project):
    for name, container in _containers(project).items():
        policy = container["indexingPolicy"]
        paths = [entry["path"] for entry in policy["includedPaths"] + policy["excludedPaths"]]
        assert paths.count("/*") == 1, name


def leases_expire_only_when_they_say_so(project):
    assert _containers(project)["leases"]["defaultTtl"] == -1


def every_container_settles_conflicts_by_the_last_write_and_scales_by_itself(project):
    for r in project.deployed().of_type("Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers"):
        assert r.properties["resource"]["conflictResolutionPolicy"]["mode"] == "LastWriterWins"
        maximum = r.properties["options"]["autoscaleSettings"]["maxThroughput"]
        assert maximum >= 1000 and maximum % 1000 == 0


def each_feed_function_has_leases_of_its_own_in_every_region(project):
    prefixes = {}
    for function, binding in project.bindings():
        if binding["type"] == "cosmosDBTrigger":
            for region, settings in project.deployed().app_settings().items():
                prefix = re.sub(r"%(\w+)%", lambda m: settings[m[1]], binding["leaseContainerPrefix"])
                prefixes[function, region] = prefix
    assert len(set(prefixes.values())) == len(prefixes) == 2 * len(project.regions)
    for one in prefixes.values():
        assert not any(other != one and other.startswith(one) for other in prefixes.values())


def consistency_and_backup_suit_many_writing_regions(project):
    for variant, deployed in project.every_variant().items():
        account = deployed.one("Microsoft.DocumentDB/databaseAccounts").properties
        assert account["consistencyPolicy"]["defaultConsistencyLevel"] == "Session"
        assert account["backupPolicy"]["type"] == ("Periodic" if variant == "no entry" else "Continuous")


def zones_are_used_where_asked_for_and_nowhere_else(project):
    deployed = project.deployed("everything")
    account = deployed.one("Microsoft.DocumentDB/databaseAccounts").properties
    zones = {place["locationName"]: place["isZoneRedundant"] for place in account["locations"]}
    assert zones == {region["name"]: region["name"] == "North Europe" for region in project.regions}
    plans = {r.body["location"]: r.properties["zoneRedundant"] for r in deployed.of_type("Microsoft.Web/serverfarms")}
    assert [place for place, zone in plans.items() if zone] == ["northeurope"]
