"""From where on something is said, and how loudly: every number of detection, with its unit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Thresholds:
    """What counts as too much. Two looks are compared where nothing else is said."""

    statement_warning_s: float = 1800
    statement_critical_s: float = 3600
    in_transaction_warning_s: float = 300
    in_transaction_critical_s: float = 1800
    blocked_sessions: int = 5
    """So many waiting for one session are a queue."""
    queue_s: float = 10
    """A queue younger than this is a migration's short lock: a warning."""
    lock_wait_warning_s: float = 120
    lock_wait_critical_s: float = 900
    connections_warning_share: float = 0.7
    connections_share: float = 0.8
    failed_logins: int = 10
    """Of one role or one client; critical where so many fail in a minute."""
    burst_s: float = 900
    """So long after the last failed login a successful one belongs to them."""
    refused_connections: int = 10
    denied: int = 20
    """Statements of one role that the server did not permit."""
    mass_share: float = 0.5
    """Of a table's rows."""
    mass_rows: int = 1000
    """Smaller tables may come and go."""
    young_table_s: float = 86400
    """A table that came since then and goes is one that somebody worked with: a warning."""
    retained_bytes: float = 1024**3
    """Of log: kept for a slot, or not yet at a standby. Less is too little to wake anybody."""
    log_share: float = 2.0
    log_critical_share: float = 4.0
    """Of max_wal_size and wal_keep_size, which a healthy server keeps its log below."""
    replica_warning_s: float = 300
    replica_critical_s: float = 1800
    freeze_share: float = 1.1
    """Of the age at which autovacuum has to freeze; a healthy database turns back at 1."""
    freeze_critical_share: float = 2.0
    freeze_critical_of_limit: float = 0.7
    """Of the 2^31 transactions after which PostgreSQL stops."""
    copied_rows: int = 100_000
    copied_rows_critical: int = 1_000_000
    """While nothing is known of a role; later what is usual for it counts."""
    selected_rows: int = 100_000
    selected_rows_critical: int = 1_000_000
    """Given to a login by select between two looks; critical only where it is unusual too."""
    read_rows_per_s: float = 100_000
    transactions_per_s: float = 500
    """Below these two no rate is unusual."""
    growth_bytes: float = 1024**3
    growth_s: float = 3600
    """A database grows by so much within this time before it can be unusual."""
    connections_floor: int = 10
    learning_s: float = 7 * 86400
    """Before a role or a database was watched for so long, nothing of it counts as unusual."""
    learning_samples: int = 30
    half_life_s: float = 7 * 86400
    """After so long what was seen counts half."""
    deviations: float = 6
    temp_bytes: float = 1024**3
    temp_critical_bytes: float = 10 * 1024**3
    rollback_share: float = 0.5
    transactions: int = 200
    deadlocks: int = 3
    linger_s: float = 900
    """What happens and is over stays open for so long."""
    escalate_s: float = 3600
    """A warning about load that lasts longer becomes critical."""

    def but(self, own: Mapping[str, Any]) -> Thresholds:
        """With some of them, by name, as a team wants them."""
        return replace(self, **own)


@dataclass(frozen=True)
class Bounds:
    """Whose thresholds hold for whom: a team's own for what is the team's, else the server's."""

    server: Thresholds = field(default_factory=Thresholds)
    own: Mapping[str, Thresholds] = field(default_factory=dict)
    """By the name of a role, a login or a database."""

    def of(self, *names: str | None) -> Thresholds:
        """Those of the first of these names that has any."""
        return next((self.own[name] for name in names if name is not None and name in self.own), self.server)
