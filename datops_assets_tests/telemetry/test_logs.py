"""Log lines of the command line."""

import io
import logging
from collections.abc import Iterator

import pytest

from datops_assets.telemetry import set_up_logging


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    logger = logging.getLogger("datops_assets")
    before = (logger.handlers, logger.level, logger.propagate)
    yield io.StringIO()
    logger.handlers, logger.level, logger.propagate = before


def test_a_line_is_plain_and_comes_once_however_often_logging_is_set_up(lines):
    set_up_logging(stream=lines)
    set_up_logging(stream=lines)
    logging.getLogger("datops_assets.ingestion").warning("%s has no rows", "orders.csv")
    assert lines.getvalue() == "warning: orders.csv has no rows\n"


def test_a_quieter_level_is_left_out(lines):
    set_up_logging(logging.WARNING, stream=lines)
    logging.getLogger("datops_assets.ingestion").info("reading")
    assert lines.getvalue() == ""


def test_at_debug_a_line_says_when_and_where(lines):
    set_up_logging(logging.DEBUG, stream=lines)
    logging.getLogger("datops_assets.ingestion").debug("reading")
    assert lines.getvalue().endswith(" debug datops_assets.ingestion: reading\n")


def test_a_secret_is_blanked_in_the_message_and_in_the_traceback(lines):
    set_up_logging(stream=lines, secrets=["s3same"])
    try:
        raise ValueError("cannot open postgresql://u:hunter2@db/x")
    except ValueError:
        logging.getLogger("datops_assets").exception("no s3same")
    assert "hunter2" not in lines.getvalue()
    assert "s3same" not in lines.getvalue()
    assert "error: no ***" in lines.getvalue()


def test_loggers_of_libraries_are_left_alone(lines):
    set_up_logging(stream=lines)
    logging.getLogger("some_library").error("not ours")
    assert lines.getvalue() == ""
