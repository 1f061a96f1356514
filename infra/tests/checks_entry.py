"""The way in: Front Door, Traffic Manager, the web client."""


def _place(name):
    return name.replace(" ", "").lower()


def front_door_probes_the_health_of_every_region(project):
    deployed = project.deployed()
    group = next(g for g in deployed.of_type("Microsoft.Cdn/profiles/originGroups") if g.name.endswith("/nearest"))
    probe = group.properties["healthProbeSettings"]
    assert probe["probePath"] == "/api/health"
    assert (probe["probeProtocol"], probe["probeRequestType"]) == ("Https", "GET")
    assert probe["probeIntervalInSeconds"] <= 30
    origins = deployed.of_type("Microsoft.Cdn/profiles/originGroups/origins")
    behind = {o.properties["hostName"] for o in origins if "/nearest/" in o.name}
    sites = deployed.of_type("Microsoft.Web/sites")
    assert behind == {f"{site.name}.azurewebsites.net" for site in sites}
    for origin in origins:
        assert origin.properties["originHostHeader"] == origin.properties["hostName"]


def the_probe_is_a_function_that_answers_get(project):
    (trigger,) = [b for b in project.functions["health"]["bindings"] if b["type"] == "httpTrigger"]
    assert trigger["route"] == "health" and "get" in trigger["methods"]


def each_region_has_a_path_of_its_own(project):
    routes = {
        route.name.split("/")[-1]: route.properties
        for route in project.deployed().of_type("Microsoft.Cdn/profiles/afdEndpoints/routes")
    }
    assert routes["nearest"]["patternsToMatch"] == ["/api/*"]
    assert routes["client"]["patternsToMatch"] == ["/*"]
    for region, stamp in zip(project.regions, project.deployed().outputs["STAMPS"], strict=True):
        place = _place(region["name"])
        assert routes[place]["patternsToMatch"] == [f"/{place}/*"]
        assert routes[place]["originPath"] == "/", "or the functions would see the region in their path"
        assert stamp["url"].endswith(f".azurefd.net/{place}")


def answers_of_functions_are_not_cached(project):
    for route in project.deployed().of_type("Microsoft.Cdn/profiles/afdEndpoints/routes"):
        assert ("cacheConfiguration" in route.properties) == route.name.endswith("/client")


def front_door_limits_the_writes_of_one_address(project):
    policy = project.deployed().one("Microsoft.Network/FrontDoorWebApplicationFirewallPolicies").properties
    (rule,) = policy["customRules"]["rules"]
    (condition,) = rule["matchConditions"]
    assert policy["policySettings"]["mode"] == "Prevention"
    assert rule["ruleType"] == "RateLimitRule" and rule["action"] == "Block"
    assert condition["transforms"] == ["Lowercase"]
    assert condition["matchValue"] == ["/api/writeevent"]
    guard = project.deployed().one("Microsoft.Cdn/profiles/securityPolicies").properties["parameters"]
    assert guard["associations"][0]["patternsToMatch"] == ["/*"]


def traffic_manager_probes_each_region_by_its_own_name(project):
    profile = project.deployed("traffic manager").one("Microsoft.Network/trafficmanagerprofiles").properties
    assert profile["trafficRoutingMethod"] == "Performance"
    assert profile["monitorConfig"]["path"] == "/api/health"
    for endpoint in profile["endpoints"]:
        assert {"name": "host", "value": endpoint["properties"]["target"]} in endpoint["properties"]["customHeaders"]


def without_front_door_there_is_none(project):
    for variant in ("no entry", "traffic manager"):
        deployed = project.deployed(variant)
        assert not [r for r in deployed.resources if r.type.startswith("Microsoft.Cdn")]
        for site in deployed.of_type("Microsoft.Web/sites"):
            assert site.properties["siteConfig"]["ipSecurityRestrictionsDefaultAction"] == "Allow"


def the_client_is_served_from_two_places(project):
    deployed = project.deployed()
    origins = [
        o.properties for o in deployed.of_type("Microsoft.Cdn/profiles/originGroups/origins") if "/client/" in o.name
    ]
    assert [origin["priority"] for origin in origins] == [1, 2]
    assert "-secondary." in origins[1]["hostName"]
    websites = [
        r.properties["staticWebsite"]
        for r in deployed.of_type("Microsoft.Storage/storageAccounts/blobServices")
        if "staticWebsite" in r.properties
    ]
    assert [site["indexDocument"] for site in websites] == ["index.html"]
