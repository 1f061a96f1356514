"""One item at a time, several in one batch, and what is answered when that cannot be."""

import unittest
from contextlib import contextmanager

from azure.core import MatchConditions
from azure.cosmos import exceptions
from azure.cosmos.partition_key import NonePartitionKeyValue
from support import connect, make_container


class Refusals(unittest.TestCase):
    @contextmanager
    def refused(self, status):
        with self.assertRaises(exceptions.CosmosHttpResponseError) as caught:
            yield
        self.assertEqual(caught.exception.status_code, status, caught.exception)


class Items(Refusals):
    @classmethod
    def setUpClass(cls):
        cls.orders = make_container("items")

    def test_are_created_read_replaced_and_deleted(self):
        order = {"id": "o-1", "tenant": "t1", "total": 1.5, "deep": {"list": [1, None, "ü 東京 🚀"]}, "big": 2**53}
        created = self.orders.create_item(order)
        read = self.orders.read_item("o-1", "t1")
        self.assertEqual(read, created)
        for name, value in order.items():
            self.assertEqual(read[name], value)
        replaced = self.orders.replace_item("o-1", {**order, "total": 2})
        self.assertEqual((replaced["total"], replaced["_rid"]), (2, read["_rid"]))
        self.assertNotEqual(replaced["_etag"], read["_etag"])
        self.orders.delete_item("o-1", "t1")
        with self.refused(404):
            self.orders.read_item("o-1", "t1")

    def test_are_created_or_replaced_by_upsert(self):
        self.orders.upsert_item({"id": "u", "tenant": "t1", "n": 1})
        self.orders.upsert_item({"id": "u", "tenant": "t1", "n": 2})
        self.assertEqual(self.orders.read_item("u", "t1")["n"], 2)

    def test_get_an_id_when_they_have_none(self):
        made = self.orders.create_item({"tenant": "t1"}, enable_automatic_id_generation=True)
        self.assertEqual(len(made["id"]), 36)

    def test_of_a_partition_key_are_not_deleted_all_at_once(self):
        with self.refused(501):
            self.orders.delete_all_items_by_partition_key("t1")

    def test_have_the_throughput_of_their_container(self):
        self.assertEqual(self.orders.get_throughput().offer_throughput, 400)

    def test_with_the_same_id_and_other_keys_are_different_items(self):
        keys = ["k", 0, False, "", 1.5]
        for key in keys:
            self.orders.create_item({"id": "same", "tenant": key, "was": repr(key)})
        for key in keys:
            self.assertEqual(self.orders.read_item("same", key)["was"], repr(key))
        self.orders.create_item({"id": "same", "was": "missing"})
        self.assertEqual(self.orders.read_item("same", NonePartitionKeyValue)["was"], "missing")

    def test_have_ids_of_any_characters_that_the_service_allows(self):
        for name in ["a b", "a+b", "a@b=c&d", "ünï", "%25", "a'b\"c", "東京"]:
            self.orders.create_item({"id": name, "tenant": "ids"})
            self.assertEqual(self.orders.read_item(name, "ids")["id"], name)
            self.orders.delete_item(name, "ids")

    def test_are_refused_with_409_404_412_and_400(self):
        made = self.orders.create_item({"id": "once", "tenant": "t1"})
        with self.refused(409):
            self.orders.create_item({"id": "once", "tenant": "t1"})
        with self.refused(404):
            self.orders.replace_item("never", {"id": "never", "tenant": "t1"})
        with self.refused(404):
            self.orders.delete_item("never", "t1")
        unchanged = {"etag": made["_etag"], "match_condition": MatchConditions.IfNotModified}
        self.orders.replace_item("once", {"id": "once", "tenant": "t1", "n": 1}, **unchanged)
        with self.refused(412):
            self.orders.replace_item("once", {"id": "once", "tenant": "t1", "n": 2}, **unchanged)
        with self.refused(412):
            self.orders.delete_item("once", "t1", **unchanged)
        self.assertEqual(self.orders.read_item("once", "t1")["n"], 1)
        with self.refused(400):
            self.orders.replace_item("once", {"id": "other", "tenant": "t1"})

    def test_are_not_sent_back_when_nobody_asked(self):
        answer = self.orders.upsert_item({"id": "quiet", "tenant": "t1"}, no_response=True)
        self.assertEqual(dict(answer), {})

    def test_are_listed_in_pages(self):
        for n in range(8):
            self.orders.create_item({"id": f"listed-{n}", "tenant": f"t{n}"})
        pages = [list(page) for page in self.orders.read_all_items(max_item_count=3).by_page()]
        self.assertTrue(all(len(page) <= 3 for page in pages))
        rids = [item["_rid"] for page in pages for item in page]
        self.assertEqual(len(rids), len(set(rids)))
        self.assertGreaterEqual(len(rids), 8)


class SeveralOperationsAtOnce(Refusals):
    @classmethod
    def setUpClass(cls):
        cls.orders = make_container("several")

    def test_patch_changes_parts_of_an_item_all_of_them_or_none(self):
        self.orders.create_item({"id": "p", "tenant": "t1", "n": 1, "tags": ["a"], "draft": True})
        patched = self.orders.patch_item(
            "p",
            "t1",
            [
                {"op": "add", "path": "/tags/-", "value": "b"},
                {"op": "set", "path": "/state", "value": {"open": False}},
                {"op": "incr", "path": "/n", "value": 2.5},
                {"op": "remove", "path": "/draft"},
            ],
        )
        self.assertEqual((patched["n"], patched["tags"], patched["state"]), (3.5, ["a", "b"], {"open": False}))
        self.assertNotIn("draft", patched)
        with self.refused(400):
            operations = [{"op": "set", "path": "/n", "value": 0}, {"op": "remove", "path": "/never"}]
            self.orders.patch_item("p", "t1", operations)
        self.assertEqual(self.orders.read_item("p", "t1")["n"], 3.5)
        increase = [{"op": "incr", "path": "/n", "value": 1}]
        with self.refused(412):
            self.orders.patch_item("p", "t1", increase, filter_predicate="from c where c.n > 100")
        changed = self.orders.patch_item("p", "t1", increase, filter_predicate="from c where c.n < 100")
        self.assertEqual(changed["n"], 4.5)

    def test_a_batch_is_carried_out_whole_or_not_at_all(self):
        done = self.orders.execute_item_batch(
            [
                ("create", ({"id": "b-1", "tenant": "t1", "n": 1},)),
                ("upsert", ({"id": "b-2", "tenant": "t1"},)),
                ("patch", ("b-1", [{"op": "incr", "path": "/n", "value": 1}])),
                ("read", ("b-1",)),
                ("delete", ("b-2",)),
            ],
            "t1",
        )
        self.assertEqual([result["statusCode"] for result in done], [201, 201, 200, 200, 204])
        self.assertEqual(done[3]["resourceBody"]["n"], 2)
        with self.assertRaises(exceptions.CosmosBatchOperationError) as failed:
            self.orders.execute_item_batch(
                [
                    ("replace", ("b-1", {"id": "b-1", "tenant": "t1", "n": 9})),
                    ("create", ({"id": "b-1", "tenant": "t1"},)),
                    ("create", ({"id": "b-3", "tenant": "t1"},)),
                ],
                "t1",
            )
        self.assertEqual((failed.exception.status_code, failed.exception.error_index), (409, 1))
        self.assertEqual(self.orders.read_item("b-1", "t1")["n"], 2)
        with self.refused(404):
            self.orders.read_item("b-3", "t1")


class DatabasesAndContainers(Refusals):
    def test_are_created_read_listed_and_deleted(self):
        client = connect()
        container = make_container("short-lived", client)
        database = client.get_database_client("python")
        self.assertEqual(container.read()["partitionKey"]["paths"], ["/tenant"])
        self.assertIn("short-lived", [found["id"] for found in database.list_containers()])
        with self.refused(409):
            make_container("short-lived", client)
        database.delete_container("short-lived")
        with self.refused(404):
            container.read()

    def test_are_found_by_query(self):
        client = connect()
        make_container("found", client)
        text = "SELECT * FROM root r WHERE r.id = @id"
        database = client.get_database_client("python")
        found = database.query_containers(text, parameters=[{"name": "@id", "value": "found"}])
        self.assertEqual([container["id"] for container in found], ["found"])
        found = client.query_databases(text, parameters=[{"name": "@id", "value": "python"}])
        self.assertEqual([database["id"] for database in found], ["python"])
