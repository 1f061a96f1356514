"""infra/tools/reset-leases.mjs, against a stand-in of the account."""

import json
import os
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import pytest

from project import ROOT

TOOL = ROOT / "infra/tools/reset-leases.mjs"


class Account(BaseHTTPRequestHandler):
    """Knows what the tool asks of the container `leases`: a query in two pages, and deletes."""

    def do_POST(self):
        query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prefix = query["parameters"][0]["value"]
        found = sorted(id for id in self.server.leases if id.startswith(prefix))
        second = self.headers["x-ms-continuation"] == "rest"
        page = found[1:] if second else found[:1]
        self.server.seen.append((self.headers["Authorization"], self.headers["x-ms-documentdb-isquery"]))
        self._answer(200, {"Documents": [{"id": id} for id in page]}, None if second else "rest")

    def do_DELETE(self):
        id = unquote(self.path.rpartition("/")[2])
        assert self.path.startswith("/dbs/eventsDb/colls/leases/docs/")
        assert json.loads(self.headers["x-ms-documentdb-partitionkey"]) == [id]
        self.server.leases.remove(id)
        self._answer(204, None, None)

    def _answer(self, status, body, continuation):
        self.send_response(status)
        if continuation:
            self.send_header("x-ms-continuation", continuation)
        content = json.dumps(body).encode() if body else b""
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def account():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Account)
    server.seen = []
    host = "127.0.0.1"
    server.leases = {
        f"Materialized-West US{host}_rid_rid..0",
        f"Materialized-West US{host}_rid_rid.info",
        f"Materialized-West US 2{host}_rid_rid..0",
        f"Notifications-West US{host}_rid_rid..0",
    }
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def test_only_the_leases_of_one_function_in_one_region_go(account, tmp_path):
    az = tmp_path / "az"
    az.write_text("#!/bin/sh\necho the-token\n")
    az.chmod(0o755)
    done = subprocess.run(
        ["node", TOOL, f"http://127.0.0.1:{account.server_port}/", "Materialized", "West US"],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "2 leases of Materialized in West US deleted\n"
    assert sorted(account.leases) == [
        "Materialized-West US 2127.0.0.1_rid_rid..0",
        "Notifications-West US127.0.0.1_rid_rid..0",
    ]
    assert account.seen[0] == ("type%3Daad%26ver%3D1.0%26sig%3Dthe-token", "true")


def test_without_a_region_nothing_is_deleted(account):
    done = subprocess.run(["node", TOOL, "http://127.0.0.1:1/", "Materialized"], capture_output=True, timeout=60)
    assert done.returncode == 2
    assert len(account.leases) == 4
