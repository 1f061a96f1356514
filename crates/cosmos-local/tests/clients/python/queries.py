"""Queries: within a partition, across partitions with the merging that the SDK does, and in pages."""

from azure.cosmos import exceptions
from items import Refusals
from support import make_container, split

COUNT = 60

# The documents, as the expectations below compute with them.
STORED = [
    {
        "id": f"o-{n:02}",
        "tenant": f"t{n % 4}",
        "total": n * 7 % COUNT,
        "kind": ["book", "pen", "cup"][n % 3],
        "tags": [f"x{n % 2}", "all"],
        "lines": [{"sku": f"s{n % 5}", "count": n % 4}, {"sku": "s-all", "count": 1}],
        **({} if n % 10 == 0 else {"note": f"note {n}"}),
    }
    for n in range(COUNT)
]
DESCENDING = sorted(STORED, key=lambda order: -order["total"])


def ids(rows):
    return [row["id"] for row in rows]


class Queries(Refusals):
    @classmethod
    def setUpClass(cls):
        cls.orders = make_container("queries")
        for order in STORED:
            cls.orders.create_item(order)

    def run_query(self, query, partition_key=None, **options):
        scope = {"partition_key": partition_key} if partition_key else {"enable_cross_partition_query": True}
        return list(self.orders.query_items(query, **scope, **options))

    def count(self, condition):
        return len(self.run_query(f"SELECT VALUE c.id FROM c WHERE {condition}"))

    def test_filter_by_parameters_within_a_partition_and_across(self):
        query = "SELECT * FROM c WHERE c.kind = @kind AND c.total >= @least"
        parameters = [{"name": "@kind", "value": "book"}, {"name": "@least", "value": 30}]
        expected = [order for order in STORED if order["kind"] == "book" and order["total"] >= 30]
        self.assertEqual(sorted(ids(self.run_query(query, parameters=parameters))), ids(expected))
        own = [order for order in expected if order["tenant"] == "t1"]
        self.assertEqual(sorted(ids(self.run_query(query, "t1", parameters=parameters))), ids(own))

    def test_order_by_both_ways_and_by_several_columns(self):
        self.assertEqual(ids(self.run_query("SELECT * FROM c ORDER BY c.total DESC")), ids(DESCENDING))
        several = sorted(STORED, key=lambda order: (order["kind"], -order["total"]))
        rows = self.run_query("SELECT c.id, c.kind FROM c ORDER BY c.kind, c.total DESC")
        self.assertEqual(ids(rows), ids(several))

    def test_top_offset_and_limit_cut_the_merged_order(self):
        rows = self.run_query("SELECT TOP 5 * FROM c ORDER BY c.total DESC")
        self.assertEqual(ids(rows), ids(DESCENDING[:5]))
        rows = self.run_query("SELECT * FROM c ORDER BY c.total DESC OFFSET 7 LIMIT 11")
        self.assertEqual(ids(rows), ids(DESCENDING[7:18]))
        self.assertEqual(len(self.run_query("SELECT TOP 3 * FROM c")), 3)
        self.assertEqual(len(self.run_query("SELECT * FROM c OFFSET 50 LIMIT 100")), 10)

    def test_several_partition_keys_are_asked_for_and_no_others(self):
        rows = self.run_query("SELECT * FROM c WHERE c.tenant IN ('t1', 't2') ORDER BY c.total DESC")
        self.assertEqual(ids(rows), ids(order for order in DESCENDING if order["tenant"] in ("t1", "t2")))
        query = "SELECT VALUE COUNT(1) FROM c WHERE c.tenant IN ('t1', 't2', 'nobody')"
        self.assertEqual(self.run_query(query), [30])

    def test_aggregates_over_all_partitions(self):
        for query, expected in [
            ("SELECT VALUE COUNT(1) FROM c", COUNT),
            ("SELECT VALUE SUM(c.total) FROM c", sum(order["total"] for order in STORED)),
            ("SELECT VALUE MIN(c.total) FROM c", 0),
            ("SELECT VALUE MAX(c.id) FROM c", "o-59"),
            ("SELECT VALUE AVG(c.total) FROM c WHERE c.total < 10", 4.5),
            ("SELECT VALUE COUNT(c.note) FROM c", COUNT - 6),
            ("SELECT VALUE COUNT(1) FROM c WHERE c.total > 1000", 0),
        ]:
            self.assertEqual(self.run_query(query), [expected], query)

    def test_group_by_within_a_partition(self):
        query = "SELECT c.kind, COUNT(1) AS n, MAX(c.total) AS most FROM c GROUP BY c.kind"
        expected = []
        for kind in ["book", "cup", "pen"]:
            totals = [order["total"] for order in STORED if order["kind"] == kind and order["tenant"] == "t1"]
            expected.append({"kind": kind, "n": len(totals), "most": max(totals)})
        self.assertEqual(sorted(self.run_query(query, "t1"), key=lambda row: row["kind"]), expected)
        # This SDK does not say that it can merge groups.
        with self.refused(400):
            self.run_query(query)

    def test_distinct(self):
        kinds = self.run_query("SELECT DISTINCT VALUE c.kind FROM c")
        self.assertEqual(sorted(kinds), ["book", "cup", "pen"])
        ordered = self.run_query("SELECT DISTINCT VALUE c.kind FROM c ORDER BY c.kind DESC")
        self.assertEqual(ordered, ["pen", "cup", "book"])
        self.assertEqual(len(self.run_query("SELECT DISTINCT c.kind, c.tenant FROM c")), 12)

    def test_join_exists_and_array_over_members(self):
        joined = self.run_query("SELECT c.id, l.sku FROM c JOIN l IN c.lines WHERE l.count = 3")
        expected = [order for order in STORED if order["lines"][0]["count"] == 3]
        self.assertEqual(sorted(ids(joined)), ids(expected))
        self.assertEqual(self.count("EXISTS(SELECT VALUE l FROM l IN c.lines WHERE l.sku = 's3')"), 12)
        query = "SELECT VALUE ARRAY(SELECT VALUE l.count FROM l IN c.lines) FROM c WHERE c.id = 'o-07'"
        self.assertEqual(self.run_query(query), [[3, 1]])
        query = "SELECT VALUE COUNT(1) FROM c JOIN t IN c.tags WHERE t = 'x1'"
        self.assertEqual(self.run_query(query), [COUNT // 2])

    def test_undefined_in_between_like_and_functions(self):
        self.assertEqual(self.count("NOT IS_DEFINED(c.note)"), 6)
        self.assertEqual(self.count("c.note != null"), COUNT - 6)
        self.assertEqual(self.count("c.kind IN ('pen', 'cup')"), 40)
        self.assertEqual(self.count("c.total BETWEEN 10 AND 19"), 10)
        self.assertEqual(self.count("c.id LIKE 'o-1_'"), 10)
        self.assertEqual(self.count("STARTSWITH(c.note, 'NOTE 5', true)"), 10)
        self.assertEqual(self.count("ARRAY_CONTAINS(c.tags, 'x0')"), 30)
        self.assertEqual(self.count("ARRAY_CONTAINS(c.lines, {sku: 's1'}, true)"), 12)

    def test_see_every_row_of_a_partition_key_after_a_split(self):
        # Across partitions, this SDK reads those that were not split twice: `_configure_partition_ranges` of
        # azure-cosmos 4.17.1 goes on with its old list after it has made a new one.
        divided = make_container("divided")
        for order in STORED:
            divided.create_item(order)
        split(divided)
        for tenant in ["t0", "t1", "t2", "t3"]:
            found = divided.query_items("SELECT * FROM c ORDER BY c.total DESC", partition_key=tenant)
            self.assertEqual(ids(found), ids(order for order in DESCENDING if order["tenant"] == tenant))

    def test_go_on_from_a_continuation(self):
        of_t2 = [order for order in STORED if order["tenant"] == "t2"]
        sorted_t2 = [order for order in DESCENDING if order["tenant"] == "t2"]
        for query, scope, expected in [
            ("SELECT * FROM c", {"enable_cross_partition_query": True}, STORED),
            ("SELECT * FROM c", {"partition_key": "t2"}, of_t2),
            ("SELECT * FROM c ORDER BY c.total DESC", {"partition_key": "t2"}, sorted_t2),
        ]:
            seen, token = [], None
            while True:
                # A new iterator for each page: all it knows is in the token.
                pages = self.orders.query_items(query, max_item_count=7, **scope).by_page(token)
                page = list(next(pages))
                self.assertLessEqual(len(page), 7)
                seen += ids(page)
                token = pages.continuation_token
                if not token:
                    break
            self.assertEqual(seen if "ORDER" in query else sorted(seen), ids(expected), query)

    def test_are_refused_when_they_cannot_be_read(self):
        with self.refused(400):
            self.run_query("SELEC * FROM c")
        for query, named in [
            ("SELECT * FROM c WHERE udf.f(c.id)", r"udf\.f"),
            ("SELECT * FROM c WHERE c.id = @missing", "@missing"),
        ]:
            with self.assertRaisesRegex(exceptions.CosmosHttpResponseError, named):
                self.run_query(query, "t1")
