"""examples/covid on the real daily reports, against what Python's csv module reads from them.

The files are not part of the project: COVID_DIR names their folder, without it this skips.
"""

from __future__ import annotations

import csv
import os
import shutil
from collections import Counter
from datetime import datetime
from pathlib import Path

import pytest

from datops_assets.components.document import PipelineDocument
from datops_assets.components.documents import read_documents
from datops_assets.components.runner import PipelineRun, run_pipeline

REPORTS = Path(os.environ.get("COVID_DIR") or "/nowhere")
EXAMPLE = Path(__file__).parents[2] / "examples" / "covid" / "pipeline.yaml"
PLACE = {
    "Province/State": "province",
    "Province_State": "province",
    "Country/Region": "country",
    "Country_Region": "country",
    "Admin2": "county",
}
COUNTS = ("Confirmed", "Deaths", "Recovered", "Active")

pytestmark = pytest.mark.skipif(
    not REPORTS.is_dir(), reason="COVID_DIR names no folder with the daily reports"
)


@pytest.fixture
def reports(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the files, which a test may change."""
    folder = project / "reports"
    shutil.copytree(REPORTS, folder)
    monkeypatch.setenv("COVID_DIR", str(folder))
    return folder


@pytest.fixture
def document(project: Path, reports: Path) -> PipelineDocument:
    """The example as it stands in the repository."""
    (loaded,) = read_documents(EXAMPLE, project)
    return loaded.document


def run(document: PipelineDocument, project: Path) -> PipelineRun:
    """One run that has to succeed."""
    result = run_pipeline(document, project)
    assert result.success, result.problems
    return result


def records(reports: Path) -> list[dict[str, str]]:
    """Every record of every file, with its file's day and unified names of the place."""
    found = []
    for file in sorted(reports.glob("*.csv")):
        day = datetime.strptime(file.stem, "%m-%d-%Y").date().isoformat()
        with file.open(encoding="utf-8-sig", newline="") as lines:
            for record in csv.DictReader(lines):
                place = {name: record[given] for given, name in PLACE.items() if record.get(given)}
                found.append({**record, **place, "day": day})
    return found


def key(record: dict[str, str]) -> tuple[str | None, ...]:
    """Report day and place."""
    return (record["day"], record.get("country"), record.get("province"), record.get("county"))


def test_bronze_holds_every_record_and_silver_each_day_and_place_once(document, project, reports, warehouse):
    run(document, project)
    delivered = records(reports)
    negative = [
        record for record in delivered if any((record.get(name) or "0").startswith("-") for name in COUNTS)
    ]
    assert warehouse.fetch("select count(*) from bronze.covid_daily_reports") == [(len(delivered),)]
    expected = {key(record) for record in delivered} - {key(record) for record in negative}
    silver = warehouse.fetch(
        "select report_date::text, country, province, county from silver.covid_daily_reports"
    )
    assert Counter(silver) == Counter(expected)
    waiting = warehouse.fetch("select reasons from quarantine.covid_daily_reports")
    assert len(waiting) == len(negative) > 0
    assert all("active: below the minimum" in reasons for (reasons,) in waiting)


def test_every_value_of_bronze_is_the_delivered_text(document, project, reports, warehouse):
    run(document, project)
    for file in ("01-22-2020.csv", "03-10-2020.csv", "03-22-2020.csv", "04-05-2020.csv"):
        with (reports / file).open(encoding="utf-8-sig", newline="") as lines:
            header, *rows = csv.reader(lines)
        columns = ", ".join(f"coalesce(b.\"{name}\", '')" for name in header)
        loaded = warehouse.fetch(
            f"select {columns} from bronze.covid_daily_reports b join datops.loads l on l.load_id = b._load_id"
            " where l.path = %s order by b._row",
            file,
        )
        assert [list(row) for row in loaded] == rows


def test_the_day_is_the_files_and_not_the_last_updates(document, project, warehouse):
    run(document, project)
    (differ,) = warehouse.fetch(
        "select count(*) from silver.covid_daily_reports where last_update::date <> report_date"
    )
    assert differ[0] > 1000
    assert warehouse.fetch(
        "select min(report_date)::text, max(report_date)::text from silver.covid_daily_reports"
    ) == [("2020-01-22", "2020-04-05")]


def test_a_second_run_adds_nothing_and_a_third_just_the_changed_and_the_new_file(
    document, project, reports, warehouse
):
    first = run(document, project)
    assert first.tables[0].files_loaded == 75
    again = run(document, project)
    assert (again.tables[0].files_loaded, again.tables[0].rows_added) == (0, 0)
    changed = reports / "02-01-2020.csv"
    changed.write_text(
        changed.read_text().replace(
            "Hubei,Mainland China,2/1/2020 11:53,7153,", "Hubei,Mainland China,2/1/2020 11:53,7154,"
        )
    )
    shutil.copy(reports / "04-05-2020.csv", reports / "04-06-2020.csv")
    third = run(document, project)
    assert third.tables[0].files_loaded == 2
    hubei = "select confirmed from silver.covid_daily_reports where province = 'Hubei' and report_date = '2020-02-01'"
    assert warehouse.fetch(hubei) == [(7154,)]
    days = warehouse.fetch("select count(*) from silver.covid_daily_reports where report_date = '2020-04-06'")
    assert days == warehouse.fetch(
        "select count(*) from silver.covid_daily_reports where report_date = '2020-04-05'"
    )
