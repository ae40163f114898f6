"""Sample files without a warehouse get the verdicts that the warehouse gives."""

from __future__ import annotations

import gzip
from collections import Counter
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datops_assets.components.document import PipelineDocument
from datops_assets.components.documents import read_documents
from datops_assets.components.runner import run_pipeline
from datops_assets.components.samples import SampleVerdict, judge_samples
from datops_assets.errors import ContainerDamagedError, DeclarationError

DOCUMENT = """\
pipeline: shop
team: commerce
source: {{type: files, path: landing}}
tables:
  orders:
    files: '{files}'
    {more}
    rename: {{Total: total}}
    contract:
      key: [order_id]
      columns:
        order_id: {{type: bigint, required: true, min: 1}}
        status: {{type: text, required: true, in: [open, paid], severity: warn}}
        email: {{type: text, regex: '.+@.+', length: {{max: 12}}}}
        total: {{type: "numeric(8,2)", min: 0}}
        paid: {{type: boolean}}
        ordered_on: {{type: date, formats: ['%d.%m.%Y', '%Y-%m-%d']}}
        updated_at: {{type: timestamptz}}
        note: {{type: text, clean: [trim, empty_to_null], length: {{max: 5}}}}
        place: {{type: json}}
        day: {{type: date, from: filename, pattern: '(\\d{{4}}-\\d\\d-\\d\\d)'}}
      rules:
        - {{name: paid_has_total, expression: "not paid or total > 0"}}
        - {{unique: [email], severity: warn}}
"""
CSV = """\
order_id,status,email,Total,paid,ordered_on,updated_at,note,place
1,open,a@b,1.50,no,2026-01-31,2026-01-31T10:00:00Z, ok ,"{""a"": 1}"
2,lost,a@b,1.50,no,31.01.2026,2026-01-31 10:00:00+02,,[]
x,paid,ab,-1,yes,31.02.2026,2026-01-31 10:00:00,toolong,{
4,paid,a@bbbbbbbbbbbbbbbbbbbb,0,yes,,,,
5,paid
6,paid,a@b,1.505,maybe,,,"  ",null
"7"x,paid,a@b,1,no,,,,
order_id,status,email,Total,paid,ordered_on,updated_at,note,place
,,,,,,,,
99999999999999999999,open,a@b,1000000,t,2026-1-1,,,
"""
LINES = r"""{"order_id": 1, "status": "open", "email": "a@b", "Total": 1.50, "paid": false, "place": {"x": 1}}
{"order_id": "2", "status": "paid", "email": "a\u0000b", "Total": 5e-1, "paid": true, "place": null}
{"order_id": 3.0, "status": "\ud800", "email": "\u00e4@b", "Total": "x", "paid": "yes", "note": {"a": [1, "\u0000"]}}
{"order_id": null, "status": null, "email": 5, "Total": null, "paid": 1}
[1, 2]
{"order_id": 6, "status": "paid",
{"order_id": 7, "order_id": "x", "status": "paid", "place": "text"}

nonsense
{"order_id": 9.5, "status": "paid", "ordered_on": "2026-02-30", "updated_at": "2026-01-01T00:00:00Z", "note": "\\u0000"}
"""


def declare(project: Path, files: str, more: str = "tags: {}") -> PipelineDocument:
    """A document over `files`."""
    (project / "pipeline.yaml").write_text(DOCUMENT.format(files=files, more=more))
    (loaded,) = read_documents(project / "pipeline.yaml", project)
    return loaded.document


def put(project: Path, path: str, content: bytes | str) -> Path:
    """A file below the landing folder."""
    file = project / "landing" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def refused_by_warehouse(document: PipelineDocument, project: Path, warehouse) -> Counter[str]:
    """Reasons of the quarantine after a real run, damaged records among them."""
    run_pipeline(document, project)
    rows = warehouse.fetch("select unnest(reasons) from quarantine.shop_orders")
    return Counter(reason for (reason,) in rows)


def judged_alike(document: PipelineDocument, project: Path, warehouse) -> SampleVerdict:
    """The verdict on the newest file, held against a real run."""
    verdict = judge_samples(document, "orders", project, [], 10_000)
    waiting = refused_by_warehouse(document, project, warehouse)
    found = Counter(dict(verdict.reasons))
    # The quarantine shows a warning only where another rule refuses the row.
    for warning in ("status: not in the allowed set", "status: missing"):
        del found[warning], waiting[warning]
    assert found == waiting
    assert warehouse.fetch("select count(*) from quarantine.shop_orders") == [(verdict.failing,)]
    return verdict


@pytest.mark.parametrize("ending", ["csv", "csv.gz"])
def test_csv_records_get_the_verdict_of_the_warehouse(project, warehouse, ending):
    document = declare(project, "orders-*", "format: csv")
    put(project, f"orders-2026-01-31.{ending}", gzip.compress(CSV.encode()) if ending.endswith("gz") else CSV)
    verdict = judged_alike(document, project, warehouse)
    assert (verdict.table, verdict.files) == ("shop.orders", [f"orders-2026-01-31.{ending}"])
    assert (verdict.records, verdict.failing) == (10, 8)
    assert ("text after a closing quote", 1) in verdict.reasons


def test_the_encoding_and_the_missing_header_are_those_of_the_document(project, warehouse):
    document = declare(
        project, "*.txt", "format: csv\n    csv: {encoding: latin-1, header: false, delimiter: ';'}"
    )
    put(project, "o-2026-01-31.txt", "1;ö\n2\n".encode("latin-1"))
    verdict = judged_alike(document, project, warehouse)
    assert ("1 fields where the header has 2", 1) in verdict.reasons


def test_json_lines_get_the_verdict_of_the_warehouse(project, warehouse):
    document = declare(project, "*.jsonl")
    put(project, "o-2026-01-31.jsonl", LINES)
    verdict = judged_alike(document, project, warehouse)
    assert ("email: not text", 1) in verdict.reasons


def test_json_documents_get_the_verdict_of_the_warehouse(project, warehouse):
    document = declare(project, "*.json", "records: data.items")
    put(
        project,
        "o-2026-01-31.json",
        '{"data": {"items": [{"order_id": 1, "status": "open"}, 5, {"order_id": "x"}]}}',
    )
    verdict = judged_alike(document, project, warehouse)
    assert (verdict.records, verdict.failing) == (3, 2)


def test_parquet_rows_get_the_verdict_of_the_warehouse(project, warehouse):
    document = declare(project, "*.parquet")
    table = pa.table(
        {
            "order_id": pa.array([1, 2, None, -4, 5], pa.int64()),
            "status": ["open", "paid", "lost", None, "a\0b"],
            "email": pa.array([1.5, 1e15, float("nan"), 1e-5, None], pa.float64()),
            "Total": pa.array(
                [Decimal("1.50"), Decimal("0.00"), None, Decimal("-1.00"), None], pa.decimal128(12, 2)
            ),
            "paid": [True, True, False, None, None],
            "ordered_on": pa.array([date(2026, 1, 31), None, date(1, 1, 1), date(9999, 12, 31), None]),
            "updated_at": pa.array(
                [datetime(2026, 1, 31, 1, 2, 3, 450000, UTC)] * 5, pa.timestamp("us", "UTC")
            ),
            "note": pa.array([time(1, 2, 3), time(1, 2), None, None, None], pa.time64("us")),
            "place": pa.array([{"x": 1}, None, {"x": None}, None, None], pa.struct([("x", pa.int32())])),
        }
    )
    put(project, "o-2026-01-31.parquet", b"")
    pq.write_table(table, project / "landing" / "o-2026-01-31.parquet")
    verdict = judged_alike(document, project, warehouse)
    assert verdict.records == 5


@pytest.mark.parametrize(
    ("array", "type_"),
    [
        (pa.array([0.1, -0.0, 1e14, 1e15, 123456789012345.6, 1e-4, 1e-5, 5e-324, -2.5e-7]), "double precision"),
        (pa.array([0.1, 100000, 1e6, 16777216, 1e-5, 3.4028235e38, float("inf")], pa.float32()), "real"),
        (pa.array([datetime(2026, 1, 1), datetime(2026, 1, 1, 0, 0, 0, 100)], pa.timestamp("us")), "timestamp"),
        (pa.array([datetime(2026, 1, 1, tzinfo=UTC)], pa.timestamp("us", "UTC")), "timestamptz"),
        (pa.array([time(1, 2, 3), time(0, 0, 0, 1)], pa.time64("us")), "time"),
        (pa.array([b"\x00\xff", b""], pa.binary()), "bytea"),
        (pa.array([Decimal("1E-7"), Decimal("12.30")], pa.decimal128(12, 7)), "numeric(12,7)"),
        (pa.array([True, False]), "boolean"),
        (pa.array([date(2026, 1, 1), date(1, 2, 3)]), "date"),
    ],
)  # fmt: skip
def test_typed_values_print_as_postgresql_prints_them(warehouse, array, type_):
    from datops_assets.ingestion.records import postgres_texts

    printed = [
        text for (text,) in warehouse.fetch(f"select v::text from unnest(%s::{type_}[]) v", array.to_pylist())
    ]
    assert postgres_texts(array, type_) == printed


def test_durations_print_as_microseconds_of_an_interval(warehouse):
    from datops_assets.ingestion.records import postgres_texts

    array = pa.array(
        [timedelta(hours=26, microseconds=5), -timedelta(seconds=1), timedelta(0)], pa.duration("us")
    )
    numbers = array.cast(pa.int64()).to_pylist()
    printed = warehouse.fetch(
        "select (n * interval '1 microsecond')::text from unnest(%s::bigint[]) n", numbers
    )
    assert [(text,) for text in postgres_texts(array, "interval")] == printed


def test_named_files_are_judged_instead_of_the_newest_and_only_their_first_records(project):
    document = declare(project, "*.csv")
    put(project, "o-2026-01-31.csv", CSV)
    elsewhere = project / "sample.csv"
    elsewhere.write_text("order_id,status\n1,open\n0,open\nx,open\n")
    verdict = judge_samples(document, "orders", project, [elsewhere], 2)
    assert (verdict.files, verdict.records, verdict.failing) == (["sample.csv"], 2, 1)
    assert verdict.reasons == [("order_id: below the minimum", 1)]
    assert verdict.not_judged == ["unique_email: looks beyond one row"]
    assert verdict.as_dict()["reasons"] == [{"reason": "order_id: below the minimum", "records": 1}]


def test_a_file_that_cannot_be_read_at_all_is_said_so(project):
    document = declare(project, "*.csv.gz")
    put(project, "o.csv.gz", gzip.compress(CSV.encode())[:-9])
    with pytest.raises(ContainerDamagedError, match=r"o\.csv\.gz: the gzip data is cut off"):
        judge_samples(document, "orders", project, [], 1000)


def test_no_file_to_judge_is_a_question_to_the_caller(project):
    document = declare(project, "*.csv")
    with pytest.raises(DeclarationError, match=r"shop\.orders has no file \*\.csv below"):
        judge_samples(document, "orders", project, [], 10)
    with pytest.raises(DeclarationError, match=r"there is no file nowhere\.csv"):
        judge_samples(document, "orders", project, [Path("nowhere.csv")], 10)


def test_an_expression_that_only_the_warehouse_can_judge_is_said_so(project):
    declare(project, "*.csv")
    text = (project / "pipeline.yaml").read_text()
    (project / "pipeline.yaml").write_text(text.replace("not paid or total > 0", "ordered_on - day < 3"))
    (loaded,) = read_documents(project / "pipeline.yaml", project)
    put(
        project,
        "o-2026-01-31.csv",
        "order_id,status,ordered_on\n1,open,\n2,open,2026-01-31\n3,open,2026-01-31\n",
    )
    verdict = judge_samples(loaded.document, "orders", project, [], 10)
    assert (verdict.records, verdict.failing) == (3, 0)
    assert [line for line in verdict.not_judged if line.startswith("paid_has_total: ")] == [
        "paid_has_total: arithmetic on dates and times is judged in the warehouse only"
    ]
