"""What people are told, and what they can look at."""

import json
import re
import subprocess
from pathlib import Path

KUSTO = Path(__file__).parent / "kql" / "diagnose.cjs"


def _alerts(deployed):
    return {r.name.rsplit("-", 1)[0]: r for r in deployed.of_type("Microsoft.Insights/scheduledQueryRules")}


def _queries(project):
    return {path.stem: path.read_text() for path in sorted(project.infra.rglob("queries/*.kql"))}


def every_query_is_understood_by_kusto(project):
    workbook = json.loads(project.text("infra", "modules", "monitoring", "workbook.json"))
    tiles = {item["name"]: item["content"]["query"] for item in workbook["items"] if item["type"] == 3}
    queries = {**_queries(project), **tiles}
    assert len(queries) > 8
    done = subprocess.run(["node", KUSTO], input=json.dumps(queries), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []


def each_query_belongs_to_an_alert_and_each_alert_to_the_workspace(project):
    deployed = project.deployed()
    alerts = _alerts(deployed)
    assert set(alerts) == set(_queries(project)) == {"failed-invocations", "feed-lag", "feed-stalled", "quarantine"}
    workspace = deployed.one("Microsoft.OperationalInsights/workspaces")
    for name, alert in alerts.items():
        assert alert.properties["scopes"] == [workspace.id]
        (criterion,) = alert.properties["criteria"]["allOf"]
        assert criterion["query"] == _queries(project)[name]


def each_line_that_a_query_looks_for_is_logged(project):
    code = project.rust()
    for name, query in _queries(project).items():
        for line in re.findall(r'Message has "([^"]+)"', query):
            assert f'"{line}' in code, f"{name} looks for {line!r}, which nothing logs"
        for field in set(re.findall(r"\bline\.(\w+)", query)) - {"message"}:
            assert re.search(rf"^\s+{field}( =|,|:)", code, re.MULTILINE), f"{name} reads {field}"


def each_function_that_a_query_names_exists(project):
    for name, query in _queries(project).items():
        for function in re.findall(r'Name (?:==|in) \(?"(\w+)"', query):
            assert function in project.functions, f"{name} names {function}"


def requests_and_exceptions_are_not_sampled_away(project):
    host = json.loads(project.text("host.json"))
    excluded = host["logging"]["applicationInsights"]["samplingSettings"]["excludedTypes"].split(";")
    assert set(excluded) == {"Request", "Exception"}, "the alerts count them"


def throttling_and_availability_are_watched(project):
    for variant, deployed in project.every_variant().items():
        metrics = {}
        for alert in deployed.of_type("Microsoft.Insights/metricAlerts"):
            for criterion in alert.properties["criteria"].get("allOf", []):
                metrics[criterion["metricName"]] = criterion
        assert metrics["TotalRequests"]["dimensions"] == [
            {"name": "StatusCode", "operator": "Include", "values": ["429"]}
        ]
        assert {"NormalizedRUConsumption", "ServiceAvailability", "ConnectionQuotaUtilization"} <= set(metrics)
        assert ("OriginHealthPercentage" in metrics) == (variant in ("default", "everything", "premium"))


def health_is_looked_at_from_outside(project):
    for variant, deployed in project.every_variant().items():
        tests = deployed.of_type("Microsoft.Insights/webtests")
        urls = [test.properties["Request"]["RequestUrl"] for test in tests]
        by_region = variant in ("no entry", "traffic manager")
        assert len(urls) == (len(project.regions) if by_region else 1)
        assert all(url.startswith("https://") and url.endswith("/api/health") for url in urls)
        watched = [
            alert.properties["criteria"]["webTestId"]
            for alert in deployed.of_type("Microsoft.Insights/metricAlerts")
            if "webTestId" in alert.properties["criteria"]
        ]
        assert watched == [test.id for test in tests]


def every_alert_reaches_the_same_people(project):
    deployed = project.deployed("everything")
    group = deployed.one("Microsoft.Insights/actionGroups")
    assert [r["emailAddress"] for r in group.properties["emailReceivers"]] == ["operator@example.org"]
    for alert in deployed.of_type("Microsoft.Insights/metricAlerts"):
        assert alert.properties["actions"] == [{"actionGroupId": group.id}]
    for alert in deployed.of_type("Microsoft.Insights/scheduledQueryRules"):
        assert alert.properties["actions"] == {"actionGroups": [group.id]}


def what_matters_sends_its_logs_to_the_workspace(project):
    for deployed in project.every_variant().values():
        workspace = deployed.one("Microsoft.OperationalInsights/workspaces")
        settings = deployed.of_type("Microsoft.Insights/diagnosticSettings")
        assert all(s.properties["workspaceId"] == workspace.id for s in settings)
        logged = {s.id.rpartition("/providers/Microsoft.Insights/")[0] for s in settings}
        for kind in (
            "Microsoft.DocumentDB/databaseAccounts",
            "Microsoft.SignalRService/signalR",
            "Microsoft.Cdn/profiles",
        ):
            assert {r.id for r in deployed.of_type(kind)} <= logged, kind
        for component in deployed.of_type("Microsoft.Insights/components"):
            assert component.properties["WorkspaceResourceId"] == workspace.id


def the_workbook_can_be_read_and_is_about_this_account(project):
    deployed = project.deployed()
    workbook = deployed.one("Microsoft.Insights/workbooks").properties
    content = json.loads(workbook["serializedData"])
    assert content["version"] == "Notebook/1.0" and content["items"]
    account = deployed.one("Microsoft.DocumentDB/databaseAccounts")
    assert account.id in workbook["serializedData"]
    assert "__" not in re.sub(r"__\w+__", lambda m: m[0] if m[0].isupper() else "", workbook["serializedData"])
