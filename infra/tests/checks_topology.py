"""The regions: one file says which there are, and everything follows it."""

import json
import re


def _place(name):
    return name.replace(" ", "").lower()


def each_region_prefers_itself_and_knows_all_others(project):
    names = [region["name"] for region in project.regions]
    assert len({_place(name) for name in names}) == len(names) > 0
    for region in project.regions:
        assert region["preferredLocations"][0] == region["name"]
        assert sorted(region["preferredLocations"]) == sorted(names)


def the_account_writes_in_every_region_and_the_first_is_the_hub(project):
    for deployed in project.every_variant().values():
        account = deployed.one("Microsoft.DocumentDB/databaseAccounts").properties
        assert account["enableMultipleWriteLocations"] is True
        assert [place["locationName"] for place in account["locations"]] == [r["name"] for r in project.regions]
        assert [place["failoverPriority"] for place in account["locations"]] == list(range(len(project.regions)))


def each_stamp_has_the_preferred_locations_of_its_region(project):
    for deployed in project.every_variant().values():
        settings = deployed.app_settings()
        assert list(settings) == [region["name"] for region in project.regions]
        for region in project.regions:
            preferred = settings[region["name"]]["PreferredLocations"].split(",")
            assert preferred == region["preferredLocations"]
            assert preferred[0] == settings[region["name"]]["REGION"]


def each_stamp_lies_in_its_region_and_alone_in_its_group(project):
    for deployed in project.every_variant().values():
        sites = deployed.of_type("Microsoft.Web/sites")
        assert len({site.group for site in sites}) == len(project.regions)
        for region, stamp in zip(project.regions, deployed.outputs["STAMPS"], strict=True):
            inside = [r for r in deployed.resources if r.group == stamp["resourceGroup"]]
            located = {r.body["location"] for r in inside if "location" in r.body}
            assert located == {_place(region["name"])}
            assert stamp["region"] == region["name"]


def the_regions_are_named_nowhere_else_in_infra(project):
    names = {region["name"] for region in project.regions} | {_place(region["name"]) for region in project.regions}
    for path in [*project.bicep_files, project.infra / "main.parameters.json", project.root / "azure.yaml"]:
        lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("//")]
        for name in names:
            assert f"'{name}'" not in "\n".join(lines), f"{path.name} names {name}"


def what_runs_on_a_laptop_has_the_same_regions(project):
    settings = json.loads(project.text("local.settings.json"))["Values"]
    preferred = {region["name"]: region["preferredLocations"] for region in project.regions}
    assert settings["PreferredLocations"].split(",") == preferred[settings["REGION"]]
    assert 'include_str!("../../infra/regions.json")' in project.text("src", "local", "topology.rs")


def a_drained_region_gets_nothing_from_the_common_entry(project):
    (drained,) = ["West US"]
    origins = project.deployed("everything").of_type("Microsoft.Cdn/profiles/originGroups/origins")
    state = {origin.name.split("/", 1)[1]: origin.properties["enabledState"] for origin in origins}
    assert state[f"nearest/{_place(drained)}"] == "Disabled"
    assert state[f"{_place(drained)}/{_place(drained)}"] == "Enabled", "its own path stays open"
    assert state["nearest/northeurope"] == "Enabled"
    profile = project.deployed("traffic manager").one("Microsoft.Network/trafficmanagerprofiles")
    state = {e["name"]: e["properties"]["endpointStatus"] for e in profile.properties["endpoints"]}
    assert state == {_place(r["name"]): "Disabled" if r["name"] == drained else "Enabled" for r in project.regions}
