"""What all parts of the suite use: the accounts under test, and their regions' switches.

The accounts are named by environment variables, so that the suite can also be run against others. The process that
started it takes regions offline: one request per line of stdout, one answer per line of stdin.
"""

import os
import sys
import time

from azure.cosmos import CosmosClient, PartitionKey

ENDPOINT = os.environ["COSMOS_ENDPOINT"]
KEY = os.environ["COSMOS_KEY"]

# Of an account of the same regions, of which only one takes writes; the first to begin with.
SINGLE_WRITE_ENDPOINT = os.environ["COSMOS_SINGLE_WRITE_ENDPOINT"]

# The account's regions, in its own order.
REGIONS = os.environ["COSMOS_REGIONS"].split(",")

# The region of each gateway.
_REGION_OF = dict(pair.split("=") for pair in os.environ["COSMOS_GATEWAYS"].split(","))


def connect(preferred=None, endpoint=ENDPOINT, **options):
    """A client that prefers these regions, nearest first."""
    return CosmosClient(
        endpoint, KEY, preferred_locations=preferred or REGIONS, multiple_write_locations=True, **options
    )


def make_container(name, client=None, **more):
    """A new container of this name, keyed by /tenant; `more` is of its definition."""
    database = (client or connect()).create_database_if_not_exists("python")
    return database.create_container(name, PartitionKey("/tenant"), **more)


def through(client, container):
    """The same container through another client."""
    return client.get_database_client("python").get_container_client(container.id)


class Attempts:
    """What came of each attempt at an item: the region, the status and, when it failed, the substatus."""

    def __init__(self):
        self._made = []
        # Milliseconds that the client was told to wait before others, altogether.
        self.told_to_wait = 0

    def of(self, action):
        """The attempts that an action makes."""
        self._made = []
        action(raw_response_hook=self._keep)
        return self._made

    def _keep(self, response):
        gateway, _, path = response.http_request.url.partition("/dbs/")
        status, headers = response.http_response.status_code, response.http_response.headers
        if "/docs" in path:
            substatus = (int(headers.get("x-ms-substatus", 0)),) if status >= 400 else ()
            self._made.append((_REGION_OF[f"{gateway}/"], status, *substatus))
            self.told_to_wait += int(headers.get("x-ms-retry-after-ms", 0))


def eventually(what, condition):
    """Waits until a condition is true."""
    deadline = time.monotonic() + 30
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"did not come true: {what}")
        time.sleep(0.005)


def _ask(request):
    print(request, flush=True)
    answer = sys.stdin.readline().strip()
    if answer != "done":
        raise RuntimeError(f"{request}: {answer}")


def set_offline(region):
    _ask(f"offline {region}")


def set_withdrawn(region):
    """To clients it is none of the account's."""
    _ask(f"withdrawn {region}")


def set_online(region):
    _ask(f"online {region}")


def limit(region, units):
    """Limits the request units per second of a region."""
    _ask(f"limited {units} {region}")


def unlimit(region):
    _ask(f"unlimited {region}")


def cut(region):
    """Nothing that a region accepts arrives elsewhere, until its links are opened."""
    _ask(f"cut {region}")


def open_links(region):
    _ask(f"open {region}")


def set_write_region(region):
    """Moves the writes of the account where only one region takes them."""
    _ask(f"hub {region}")


def settled():
    """Waits until every region has what the others have accepted."""
    _ask("settled")


def split(container):
    """Splits the container's first physical partition."""
    _ask(f"split python {container.id}")
