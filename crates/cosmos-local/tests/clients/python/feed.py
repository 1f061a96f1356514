"""The change feed: read to its end, and on from there."""

import unittest
from datetime import datetime, timedelta, timezone

from support import REGIONS, connect, make_container, settled, split, through


def drain(container, **start):
    """The ids of all changes up to now, and the place after them."""
    found = [item["id"] for item in container.query_items_change_feed(**start)]
    # Where the SDK leaves it (README of azure-cosmos, "Query the change feed").
    return found, container.client_connection.last_response_headers["etag"]


class ChangeFeed(unittest.TestCase):
    def test_gives_every_item_once_at_its_latest_change_and_goes_on(self):
        orders = make_container("feed")
        none, now = drain(orders, start_time="Now")
        self.assertEqual(none, [])
        for name in ["a", "b", "c"]:
            orders.create_item({"id": name, "tenant": f"t-{name}"})
        orders.upsert_item({"id": "a", "tenant": "t-a", "changed": True})
        orders.delete_item("b", "t-b")
        found, then = drain(orders, start_time="Beginning", max_item_count=1)
        self.assertEqual(sorted(found), ["a", "c"])
        self.assertEqual(sorted(drain(orders, continuation=now)[0]), ["a", "c"])
        self.assertEqual(drain(orders, continuation=then)[0], [])
        orders.create_item({"id": "d", "tenant": "t-d"})
        self.assertEqual(drain(orders, continuation=then)[0], ["d"])

        self.assertEqual(drain(orders, start_time="Beginning", partition_key="t-c")[0], ["c"])
        today = datetime.now(timezone.utc)
        self.assertEqual(drain(orders, start_time=today + timedelta(days=1))[0], [])
        found, _ = drain(orders, start_time=today - timedelta(days=1))
        self.assertEqual(sorted(found), ["a", "c", "d"])

    def test_can_be_read_by_ranges(self):
        orders = make_container("feed-ranges")
        for n in range(20):
            orders.create_item({"id": f"{n:02}", "tenant": f"t{n}"})
        found = []
        for feed_range in orders.read_feed_ranges():
            found += drain(orders, start_time="Beginning", feed_range=feed_range)[0]
        self.assertEqual(sorted(found), [f"{n:02}" for n in range(20)])

    def test_goes_on_over_a_split(self):
        growing = make_container("growing")

        def put(numbers):
            for n in numbers:
                growing.create_item({"id": str(n), "tenant": f"t{n}"})

        put(range(12))
        first, then = drain(growing, start_time="Beginning")
        self.assertEqual(len(first), 12)
        split(growing)
        put(range(12, 24))
        second, _ = drain(growing, continuation=then)
        self.assertEqual(sorted(map(int, second)), list(range(12, 24)))

    def test_of_all_versions_and_deletes_has_each_of_them_and_goes_on(self):
        kept = make_container("versions")

        def drain_versions(**start):
            rows = kept.query_items_change_feed(mode="AllVersionsAndDeletes", **start)
            found = [(row["metadata"]["operationType"], row.get("current", {}).get("n")) for row in rows]
            return found, kept.client_connection.last_response_headers["etag"]

        kept.create_item({"id": "before", "tenant": "t1"})
        none, now = drain_versions(start_time="Now")
        self.assertEqual(none, [])
        kept.create_item({"id": "a", "tenant": "t1", "n": 1})
        kept.upsert_item({"id": "a", "tenant": "t1", "n": 2})
        found, then = drain_versions(continuation=now)
        self.assertEqual(found, [("create", 1), ("replace", 2)])
        kept.delete_item("a", "t1")
        self.assertEqual(drain_versions(continuation=then)[0], [("delete", None)])
        self.assertEqual(len(drain_versions(continuation=now)[0]), 3)

    def test_of_another_region_has_what_was_written_here(self):
        orders = make_container("feed-afar")
        far = through(connect([REGIONS[-1]]), orders)
        _, then = drain(far, start_time="Now")
        orders.create_item({"id": "from-afar", "tenant": "t1"})
        settled()
        self.assertEqual(drain(far, continuation=then)[0], ["from-afar"])
