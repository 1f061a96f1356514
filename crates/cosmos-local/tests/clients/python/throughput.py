"""A region whose throughput is used up."""

import time
import unittest
from functools import partial

from azure.cosmos import exceptions
from azure.cosmos.documents import ConnectionPolicy
from support import REGIONS, Attempts, connect, limit, make_container, through, unlimit


class Throughput(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.orders = make_container("throughput")

    def test_that_is_used_up_is_waited_for_and_everything_is_written(self):
        own = through(connect([REGIONS[0]]), self.orders)
        units = 50
        attempts, tries, paid, last = Attempts(), [], 0.0, 0.0
        limit(REGIONS[0], units)
        start = time.monotonic()
        try:
            for n in range(20):
                tries += attempts.of(partial(own.create_item, {"id": str(n), "tenant": "t1"}))
                paid += last
                last = float(own.client_connection.last_response_headers["x-ms-request-charge"])
        finally:
            unlimit(REGIONS[0])
        seconds = time.monotonic() - start
        self.assertEqual(set(tries), {(REGIONS[0], 201), (REGIONS[0], 429, 3200)})
        waited = attempts.told_to_wait / 1000
        self.assertTrue(0 < waited <= seconds, f"{waited} of {seconds} s")
        # A second's worth is there at the start, and all but the last one are paid for.
        self.assertLessEqual(paid, units + units * seconds)
        found = own.query_items("SELECT VALUE c.id FROM c", partition_key="t1")
        self.assertEqual(len(list(found)), 20)

    def test_that_is_used_up_is_told_to_who_does_not_wait(self):
        policy = ConnectionPolicy()
        # The keyword retry_throttle_total takes 0 for the usual 9 (`cosmos_client.py` of azure-cosmos 4.17.1).
        policy.RetryOptions = type(policy.RetryOptions)(max_retry_attempt_count=0)
        own = through(connect([REGIONS[0]], connection_policy=policy), self.orders)
        limit(REGIONS[0], 5)
        try:
            with self.assertRaises(exceptions.CosmosHttpResponseError) as caught:
                for _ in range(100):
                    own.upsert_item({"id": "spent", "tenant": "t2"})
        finally:
            unlimit(REGIONS[0])
        refused = caught.exception
        self.assertEqual((refused.status_code, refused.sub_status), (429, 3200))
        self.assertGreater(int(refused.headers["x-ms-retry-after-ms"]), 0)
        own.upsert_item({"id": "spent", "tenant": "t2"})
