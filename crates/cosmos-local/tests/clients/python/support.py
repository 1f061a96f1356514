"""What all parts of the suite use: the account under test, and its regions' switches.

The account is named by environment variables, so that the suite can also be run against another one. The process that
started it takes regions offline: one request per line of stdout, one answer per line of stdin.
"""

import os
import sys

from azure.cosmos import CosmosClient, PartitionKey

ENDPOINT = os.environ["COSMOS_ENDPOINT"]
KEY = os.environ["COSMOS_KEY"]

# The account's regions, in its own order.
REGIONS = os.environ["COSMOS_REGIONS"].split(",")


def connect(preferred=None):
    """A client that prefers these regions, nearest first."""
    return CosmosClient(
        ENDPOINT, KEY, preferred_locations=preferred or REGIONS, multiple_write_locations=True
    )


def make_container(name, client=None):
    """A new container of this name, keyed by /tenant."""
    database = (client or connect()).create_database_if_not_exists("python")
    return database.create_container(name, PartitionKey("/tenant"))


def through(client, container):
    """The same container through another client."""
    return client.get_database_client("python").get_container_client(container.id)


def _ask(request):
    print(request, flush=True)
    answer = sys.stdin.readline().strip()
    if answer != "done":
        raise RuntimeError(f"{request}: {answer}")


def set_offline(region):
    _ask(f"offline {region}")


def set_online(region):
    _ask(f"online {region}")


def settled():
    """Waits until every region has what the others have accepted."""
    _ask("settled")


def split(container):
    """Splits the container's first physical partition."""
    _ask(f"split python {container.id}")
