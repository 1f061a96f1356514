"""Several regions that all take writes, and one of them going away."""

import itertools
import json
import unittest
from functools import partial
from unittest import mock

from azure.cosmos import _global_endpoint_manager
from feed import drain
from support import (
    REGIONS,
    SINGLE_WRITE_ENDPOINT,
    Attempts,
    connect,
    cut,
    eventually,
    make_container,
    open_links,
    set_offline,
    set_online,
    set_withdrawn,
    set_write_region,
    settled,
    through,
)

FIRST, SECOND = REGIONS[:2]


def five_minutes_pass_at_each_look():
    """Moves the clock by which a client decides to ask for the account's regions again.

    Once is not enough: a client that asks at the moment does not ask again (`_start_background_refresh`).
    """
    now, looks = _global_endpoint_manager.current_time_millis, itertools.count(1)

    def later():
        return now() + next(looks) * (5 * 60 * 1000 + 1)

    return mock.patch.object(_global_endpoint_manager, "current_time_millis", later)


class Regions(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.orders = make_container("regions")

    def test_all_take_writes_and_all_have_them(self):
        for region in REGIONS:
            own = through(connect([region]), self.orders)
            own.create_item({"id": region, "tenant": "t1"})
        settled()
        for region in REGIONS:
            own = through(connect([region]), self.orders)
            found = own.query_items("SELECT VALUE c.id FROM c", partition_key="t1")
            self.assertEqual(sorted(found), sorted(REGIONS))

    def test_stand_in_for_one_that_is_offline_and_nothing_is_lost_when_it_is_back(self):
        own = through(connect(REGIONS), self.orders)
        own.create_item({"id": "before", "tenant": "t2"})
        settled()
        _, then = drain(own, start_time="Now")
        set_offline(REGIONS[0])
        try:
            self.assertEqual(own.read_item("before", "t2")["id"], "before")
            own.create_item({"id": "during", "tenant": "t2"})
            found = own.query_items("SELECT VALUE c.id FROM c ORDER BY c.id", partition_key="t2")
            self.assertEqual(list(found), ["before", "during"])
            # A continuation of the region that is gone is good in any other.
            self.assertEqual(drain(own, continuation=then)[0], ["during"])
        finally:
            set_online(REGIONS[0])
        settled()
        back = through(connect([REGIONS[0]]), self.orders)
        self.assertEqual(back.read_item("during", "t2")["id"], "during")

    def test_stand_in_for_one_that_is_withdrawn_and_the_same_client_comes_back_to_it(self):
        own = through(connect([FIRST, SECOND]), self.orders)
        attempts = Attempts()

        def put(name):
            return attempts.of(partial(own.upsert_item, {"id": name, "tenant": "t3"}))

        read = partial(own.read_item, "during", "t3")
        self.assertEqual(put("before"), [(FIRST, 201)])
        set_withdrawn(FIRST)
        try:
            refused, *others, done = put("during")
            self.assertEqual((refused, done[1]), ((FIRST, 403, 1008), 201))
            self.assertNotEqual(done[0], FIRST)
            # Until it has learnt, in the background, that the region is none of the account's.
            self.assertLessEqual(set(others), {(FIRST, 403, 1008)})
            settled()
            eventually("it has learnt", lambda: attempts.of(read) == [(SECOND, 200)])
        finally:
            set_online(FIRST)
        settled()
        with five_minutes_pass_at_each_look():
            eventually("it comes back", lambda: attempts.of(read) == [(FIRST, 200)])
            eventually("and writes there", lambda: [attempt[0] for attempt in put("after")] == [FIRST])

    def test_are_asked_only_for_what_they_have_by_the_session_that_the_client_keeps(self):
        own = through(connect([SECOND, FIRST]), self.orders)
        attempts = Attempts()

        def put(n):
            item = {"id": "kept", "tenant": "t4", "n": n}
            return attempts.of(partial(own.upsert_item, item, excluded_locations=[SECOND]))

        read = partial(own.read_item, "kept", "t4")
        self.assertEqual(put(1), [(FIRST, 201)])
        settled()
        self.assertEqual(attempts.of(read), [(SECOND, 200)])
        cut(FIRST)
        try:
            self.assertEqual(put(2), [(FIRST, 200)])
            self.assertEqual(attempts.of(read), [(SECOND, 404, 1002), (FIRST, 200)])
            self.assertEqual(read()["n"], 2)
            self.assertEqual(put(3), [(FIRST, 200)])
        finally:
            open_links(FIRST)
        settled()
        self.assertEqual(attempts.of(read), [(SECOND, 200)])
        self.assertEqual(read()["n"], 3)

    def test_keep_what_has_lost_where_conflicts_are_left_to_their_users(self):
        custom = make_container("conflicts", conflict_resolution_policy={"mode": "Custom"})
        both = [through(connect([region]), custom) for region in (FIRST, SECOND)]
        both[0].create_item({"id": "old", "tenant": "t1"})
        settled()
        for region in (FIRST, SECOND):
            cut(region)
        try:
            for n, own in enumerate(both):
                own.create_item({"id": "new", "tenant": "t1", "n": n})
                own.delete_item("old", "t1")
        finally:
            for region in (FIRST, SECOND):
                open_links(region)
        settled()
        winner = both[0].read_item("new", "t1")

        def conflicts(own):
            return sorted(own.list_conflicts(), key=lambda conflict: conflict["operationType"])

        for own in both:
            created, deleted = conflicts(own)
            self.assertEqual((created["operationType"], deleted["operationType"]), ("create", "delete"))
            loser = json.loads(created["content"])
            self.assertEqual((loser["n"], loser["_rid"]), (1 - winner["n"], created["resourceId"]))
            self.assertEqual(own.get_conflict(created["id"], "t1")["id"], created["id"])
        both[1].delete_conflict(conflicts(both[1])[0]["id"], "t1")
        settled()
        for own in both:
            self.assertEqual([conflict["operationType"] for conflict in conflicts(own)], ["delete"])
            self.assertEqual(own.read_item("new", "t1")["n"], winner["n"])

    def test_of_which_only_one_takes_writes_are_written_to_there_wherever_that_is(self):
        client = connect([SECOND, FIRST], SINGLE_WRITE_ENDPOINT)
        moving = make_container("moving", client)
        attempts = Attempts()

        def put(name):
            return attempts.of(partial(moving.create_item, {"id": name, "tenant": "t1"}))

        self.assertEqual(put("before"), [(FIRST, 201)])
        settled()
        self.assertEqual(attempts.of(partial(moving.read_item, "before", "t1")), [(SECOND, 200)])
        for name, old, new in [("after", FIRST, SECOND), ("back", SECOND, FIRST)]:
            set_write_region(new)
            *refused, done = put(name)
            # Until it has learnt, in the background, where writes go now.
            self.assertEqual((set(refused), done), ({(old, 403, 3)}, (new, 201)))
            self.assertEqual(put(f"{name} that"), [(new, 201)])
        found = moving.query_items("SELECT VALUE c.id FROM c", partition_key="t1")
        self.assertEqual(sorted(found), ["after", "after that", "back", "back that", "before"])
