"""`datops load`, as a person types it."""

from __future__ import annotations

import gzip

import pytest

CONFIG = ("--config", "pipeline.yaml")


def load_of(shop, path: str) -> dict:
    """The newest entry of a file."""
    return next(load for load in shop.json("load", "list") if load["path"] == path)


def test_list_shows_the_newest_loads_first(shop):
    assert shop.json("load", "list") == []
    assert shop.datops("load", "list").stdout == "no loads yet: datops pipeline run NAME\n"
    shop.run()
    shop.put("orders/2.csv", "order_id,customer_id,total\n13,1,1.00\n")
    shop.run()
    loads = shop.json("load", "list", "store.orders")
    assert [(load["path"], load["state"], load["rows"]) for load in loads] == [
        ("orders/2.csv", "loaded", 1),
        ("orders/1.csv", "loaded", 3),
    ]
    assert {load["table"] for load in shop.json("load", "list", "store")} == {"customers", "orders", "notes"}
    assert len(shop.json("load", "list", "--limit", "2")) == 2
    assert shop.json("load", "list", "shop.nothing") == []
    assert "orders/2.csv" in shop.datops("load", "list").stdout


def test_show_takes_a_number_or_a_ulid(shop):
    shop.run()
    found = load_of(shop, "orders/1.csv")
    assert (
        shop.json("load", "show", found["ulid"]) == shop.json("load", "show", str(found["load_id"])) == found
    )
    assert found["header"] == ["order_id", "customer_id", "total"]
    assert "orders/1.csv" in shop.datops("load", "show", found["ulid"]).stdout


@pytest.mark.parametrize("command", ["show", "undo", "reload"])
def test_an_unknown_load_is_one_sentence(shop, command):
    said = shop.datops("load", command, "4711", expect=1).stderr
    assert said == "datops: there is no load '4711'; datops load list shows all\n"


def test_undo_takes_a_load_out_of_silver_until_it_is_reloaded(shop, warehouse):
    shop.put("orders/2.csv", "order_id,customer_id,total\n13,1,1.00\n")
    shop.run()
    load = load_of(shop, "orders/2.csv")
    assert shop.json("load", "undo", load["ulid"])["state"] == "undone"
    shop.run()
    assert warehouse.fetch("select order_id from silver.store_orders") == [(10,)]
    assert warehouse.fetch("select count(*) from bronze.store_orders") == [(4,)]
    said = shop.datops("load", "undo", load["ulid"], expect=1).stderr
    assert "is undone; only a loaded one can be undone" in said
    said = shop.datops("load", "reload", load["ulid"]).stdout
    assert said == (
        f"load {load['ulid']}: orders/2.csv will be loaded again by the next run: "
        "datops pipeline run --config FILE\n"
    )
    asked = shop.json("load", "show", load["ulid"])
    assert (asked["state"], asked["reload_requested"]) == ("undone", True)
    shop.run()
    assert [row["state"] for row in shop.json("load", "list", "store.orders")] == [
        "loaded",
        "undone",
        "loaded",
    ]
    shop.run()
    assert len(shop.json("load", "list", "store.orders")) == 3
    assert warehouse.fetch("select order_id from silver.store_orders order by 1") == [(10,), (13,)]


def test_undo_says_what_comes_next(shop):
    shop.run()
    load = load_of(shop, "orders/1.csv")
    number = str(load["load_id"])
    said = shop.datops("load", "undo", number).stdout
    assert said == (
        f"load {number} (orders/1.csv) is undone; silver follows with the next run: "
        "datops pipeline run --config FILE\n"
    )
    said = shop.datops("load", "undo", number, expect=1).stderr
    assert said == f"datops: load {number} of orders/1.csv is undone; only a loaded one can be undone\n"


def test_undo_names_a_pipeline_that_the_project_declares(shop, warehouse):
    shop.run()
    warehouse.conn.execute("update datops.tables set source = 'shop' where name = 'orders'")
    said = shop.datops("load", "undo", load_of(shop, "orders/1.csv")["ulid"]).stdout
    assert said.endswith(": datops pipeline run shop\n")


def test_reload_lets_a_refused_file_be_tried_again(shop):
    shop.put("orders/2.csv.gz", gzip.compress(b"order_id\n1\n")[:-9])
    shop.run(expect=1)
    load = load_of(shop, "orders/2.csv.gz")
    assert (load["state"], "cut off" in load["error"]) == ("failed", True)
    shop.run()
    assert shop.json("load", "reload", load["ulid"])["path"] == "orders/2.csv.gz"
    assert load_of(shop, "orders/2.csv.gz")["state"] == "failed"
    status = {row["table"]: row for row in shop.json("pipeline", "status", "--config", "pipeline.yaml")}
    assert status["store.orders"]["refused_files"] == 0
    shop.run(expect=1)


def test_reload_of_a_loaded_file_says_to_undo_it_first(shop):
    shop.run()
    load = load_of(shop, "orders/1.csv")
    said = shop.datops("load", "reload", load["ulid"], expect=1).stderr
    assert f"is loaded; undo it first: datops load undo {load['ulid']}" in said
