"""The calendar keeps what every source promises: `pytest`, once the package is installed."""

import pytest
from datops_calendar.source import Calendar, CalendarTable

from datops_assets.testing.sources import SourceContract


class TestCalendar(SourceContract):
    @pytest.fixture
    def source(self):
        return Calendar()

    @pytest.fixture
    def table(self):
        return CalendarTable(source="time", name="days", years=range(2024, 2027))

    @pytest.fixture
    def missing(self):
        return CalendarTable(source="time", name="days")
