"""The words of a document as enumerations; a test holds them against the models."""

from __future__ import annotations

from enum import StrEnum


class ConnectorType(StrEnum):
    """Kinds of sources that come with datops; a plug-in's kind is given by its name."""

    FILES = "files"
    DATABASE = "database"
    REST = "rest"


class LoadMode(StrEnum):
    """What a delivery does to those before it."""

    APPEND = "append"
    REPLACE = "replace"
    MERGE = "merge"
    SNAPSHOT = "snapshot"


class FileFormat(StrEnum):
    """How files are written."""

    CSV = "csv"
    JSONL = "jsonl"
    JSON = "json"
    PARQUET = "parquet"
    ORC = "orc"
    AVRO = "avro"
    EXCEL = "excel"
    FIXED = "fixed"


class SchemaPolicy(StrEnum):
    """What columns other than the known ones do."""

    EVOLVE = "evolve"
    FREEZE = "freeze"
    QUARANTINE = "quarantine"


class Severity(StrEnum):
    """What a rule that fails does: count, set rows aside, roll the judgement back."""

    WARN = "warn"
    ERROR = "error"
    BLOCK = "block"


class RunState(StrEnum):
    """Where a started execution stands."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
