"""Several regions that all take writes, and one of them going away."""

import unittest

from feed import drain
from support import REGIONS, connect, make_container, set_offline, set_online, settled, through


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
