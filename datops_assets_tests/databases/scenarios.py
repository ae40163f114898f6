"""Attacks and harmless loads, each labelled, done for real to a server of their own."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg

from datops_assets.databases import Limits, Login, TeamDatabase, Thresholds, look, rotate
from datops_assets.databases.detect.usual import hour_of
from datops_assets.databases.findings import Finding
from datops_assets.databases.watching import Look
from datops_assets_tests.databases.conftest import Teams

CLOCKS = Thresholds(
    statement_warning_s=2, statement_critical_s=60, in_transaction_warning_s=2, in_transaction_critical_s=60,
    queue_s=1, lock_wait_warning_s=2, lock_wait_critical_s=60, learning_s=0, learning_samples=5, linger_s=0,
    copied_rows=2000, copied_rows_critical=4000, temp_bytes=20 * 1024**2, temp_critical_bytes=200 * 1024**2,
    retained_bytes=24 * 1024**2, transactions_per_s=200, growth_bytes=24 * 1024**2,
)  # fmt: skip
"""What takes hours or gigabytes otherwise takes seconds and megabytes; the same for attacks and harmless loads."""
ROWS = 5000
FREEZE_MAX_AGE = 100_000
OWN_SETTINGS = f"""
archive_mode = on
archive_command = 'true'
autovacuum = off
autovacuum_freeze_max_age = {FREEZE_MAX_AGE}
deadlock_timeout = 50ms
log_connections = on
log_min_messages = error
"""


@dataclass
class Stage:
    """A team's database on a server that nobody else uses."""

    teams: Teams
    catalogue: psycopg.Connection[Any]
    sales: TeamDatabase
    open: ExitStack = field(default_factory=ExitStack)

    def look(self) -> Look:
        """Once, as the watch does."""
        return look(self.teams.connect, self.catalogue, "here", [self.sales], CLOCKS)

    def findings(self) -> list[tuple[str, str, str]]:
        """Kind, subject, severity of all that is open."""
        return self.catalogue.execute(
            "select kind, subject, severity from datops.findings where resolved_at is null"
        ).fetchall()

    def until(self, kind: str, longest_s: float = 45) -> Finding | None:
        """Look until something new of a kind is found."""
        begun = time.monotonic()
        while True:
            for one in self.look().changes.new:
                if one.kind == kind:
                    return one
            if time.monotonic() - begun > longest_s:
                return None
            time.sleep(0.1)

    def settle(self) -> None:
        """Undo, and look until nothing is open any more."""
        self.open.close()
        self.open = ExitStack()
        fill_orders(self)
        self.do("etl", "select 1")
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            self.look()
            if not self.findings():
                return
            time.sleep(0.1)
        raise AssertionError(f"still open: {self.findings()}")

    def undo(self, statement: str) -> None:
        """To be done as administrator when the scenario is over."""
        self.open.callback(self.run, statement)

    def run(self, *statements: str) -> None:
        """As administrator, in the team's database."""
        with closing(self.teams.connect(self.sales.database)) as conn:
            for one in statements:
                conn.execute(one.encode())
            conn.execute("select pg_stat_force_next_flush()")

    def login(self, name: str = "etl", **parameters: Any) -> psycopg.Connection[Any]:
        """A session of the team's, closed when the scenario is over."""
        secret = self.teams.secret(self.sales, name)
        about = {"host": self.teams.server.host, "port": self.teams.server.port, "user": secret.user,
                 "password": secret.password, "dbname": self.sales.database, **parameters}  # fmt: skip
        return self.open.enter_context(closing(psycopg.connect(**about, autocommit=True)))

    def do(self, name: str, *statements: str) -> None:
        """As a login of the team; what it counted is in the statistics then. Errors are part of the load."""
        with closing(self.login(name)) as conn:
            for one in statements:
                with suppress(psycopg.Error):
                    conn.execute(one.encode())
            conn.execute("select pg_stat_force_next_flush()")

    def start(self, name: str, statement: str) -> None:
        """A statement that goes on while others look."""
        conn = self.login(name)
        conn.execute("set work_mem to '64kB'")
        self.undo(f"select pg_terminate_backend({conn.info.backend_pid})")
        conn.pgconn.send_query(statement.encode())

    def again(self, name: str, statement: str, threads: int = 2) -> None:
        """A statement over and over, from several sessions, until the scenario is over."""
        over = threading.Event()

        def loop(conn: psycopg.Connection[Any]) -> None:
            while not over.is_set():
                with suppress(psycopg.Error):
                    conn.execute(statement.encode())

        running = [
            threading.Thread(target=loop, args=(self.login(name),), daemon=True) for _ in range(threads)
        ]
        for thread in running:
            thread.start()
            self.open.callback(thread.join, 10)
        self.open.callback(over.set)

    def fail_to_log_in(self, user: str, times: int) -> None:
        """With guessed passwords."""
        for _ in range(times):
            with suppress(psycopg.OperationalError):
                self.login(user=user, password="guess").close()

    def copy_out(self, name: str, query: str) -> None:
        """All of it, row after row."""
        with (
            closing(self.login(name)) as conn,
            conn.cursor().copy(f"copy ({query}) to stdout".encode()) as rows,
        ):
            for _ in rows:
                pass

    def slowly_copy_out(self, name: str) -> None:
        """A copy that goes on: whoever reads takes some rows and pauses, and the rest does not fit between the two."""
        rows = self.open.enter_context(
            self.login(name).cursor().copy(b"copy (select id, repeat('x', 30000) from main.orders) to stdout")
        )
        for _ in zip(rows, range(2500), strict=False):
            pass

    def fill(self, share: float) -> None:
        """Take so much of the server's places."""
        places = 97
        for _ in range(int(places * share) - 3):
            self.login()


@contextmanager
def from_another_network(port: int) -> Iterator[int]:
    """A way to the server that comes from 127.0.7.1."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def pump(here: socket.socket, there: socket.socket) -> None:
            with suppress(OSError):
                while data := here.recv(65536):
                    there.sendall(data)

        def serve() -> None:
            with suppress(OSError):
                while True:
                    here, _ = listener.accept()
                    there = socket.create_connection(("127.0.0.1", port), source_address=("127.0.7.1", 0))
                    for one, other in ((here, there), (there, here)):
                        threading.Thread(target=pump, args=(one, other), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def declare(teams: Teams) -> TeamDatabase:
    """The team whose database is attacked."""
    long = Limits(statement_s=None, lock_s=None, idle_in_transaction_s=None, transaction_s=None)
    return teams.declare(
        logins=(
            Login("maker", "owner", 30, long), Login("etl", "writer", 95, long), Login("bi", "reader", 30, long),
            Login("dumper", "reader", 5, long, exports=True),
        ),
        connections=200, team="commerce",
    )  # fmt: skip


FEW = frozenset({
    "a lock that everybody waits for", "a login works at an hour at which it never did", "a new superuser",
    "a role comes from another network", "a table is copied out", "most rows are deleted",
    "passwords of one role are tried", "a password is mistyped three times", "a pool opens its connections",
    "a report reads a table whole", "a table is emptied and filled in one transaction", "rows come",
})  # fmt: skip
"""Those that run each time; all others take longer than CI has."""
Act = Callable[[Stage], None]
ATTACKS: dict[str, tuple[str, Act]] = {}
"""What it is: the kind of finding that must come of it, how it is done."""
HARMLESS: dict[str, Act] = {}


def attack(what: str, kind: str) -> Callable[[Act], Act]:
    """Label a function."""

    def label(act: Act) -> Act:
        ATTACKS[what] = (kind, act)
        return act

    return label


def harmless(what: str) -> Callable[[Act], Act]:
    """Label a function."""

    def label(act: Act) -> Act:
        HARMLESS[what] = act
        return act

    return label


def _role(stage: Stage, login: str) -> str:
    return stage.teams.secret(stage.sales, login).user


# Ways in


@attack("passwords of one role are tried", "brute_force")
def _(stage: Stage) -> None:
    stage.fail_to_log_in(_role(stage, "etl"), 12)


@attack("one password is tried for many roles", "brute_force")
def _(stage: Stage) -> None:
    for number in range(12):
        stage.fail_to_log_in(f"user{number}", 1)


@attack("a password is found after many tries", "break_in")
def _(stage: Stage) -> None:
    stage.fail_to_log_in(_role(stage, "bi"), 12)
    stage.login("bi").close()


@attack("a role comes from another network", "new_client")
def _(stage: Stage) -> None:
    port = stage.open.enter_context(from_another_network(stage.teams.server.port))
    stage.login("bi", port=port)


@attack("a role comes by another program", "new_application")
def _(stage: Stage) -> None:
    stage.login("bi", application_name="sqldump")


@attack("a login works at an hour at which it never did", "off_hours")
def _(stage: Stage) -> None:
    who = f"{stage.sales.name}_bi"
    with stage.catalogue.transaction():
        stage.catalogue.execute("delete from datops.familiar where role = %s and trait = 'hour'", (who,))
        stage.catalogue.execute(
            "insert into datops.familiar values ('here', %s, 'hour', %s, now() - interval '1 hour')",
            (who, hour_of(datetime.now(UTC) + timedelta(hours=12))),
        )
    stage.login("bi").execute("select 1")


@attack("rights are felt for", "denied")
def _(stage: Stage) -> None:
    stage.do("bi", *["delete from main.orders"] * 25)


# Exhaustion


@attack("all places are taken", "connections")
def _(stage: Stage) -> None:
    stage.fill(0.9)


@attack("one role opens many connections", "connection_storm")
def _(stage: Stage) -> None:
    for _ in range(25):
        stage.login("bi")


@attack("a flood of statements", "statement_flood")
def _(stage: Stage) -> None:
    stage.again("bi", "begin; select 1; commit; " * 100, 3)


@attack("a bomb of temporary files", "temporary_files")
def _(stage: Stage) -> None:
    stage.start(
        "bi", "select count(*) from (select x from generate_series(1, 100000000) x order by md5(x::text)) y"
    )


@attack("a lock that everybody waits for", "lock_queue")
def _(stage: Stage) -> None:
    stage.login("maker").execute("begin; lock table orders")
    for _ in range(7):
        stage.start("etl", "select count(*) from main.orders")


@attack("a lock that one waits for, for long", "lock_queue")
def _(stage: Stage) -> None:
    stage.login("maker").execute("begin; lock table orders")
    stage.start("etl", "select count(*) from main.orders")


@attack("a transaction that is left open", "idle_in_transaction")
def _(stage: Stage) -> None:
    stage.login("etl").execute("begin; delete from main.orders where id = 1")


@attack("a recursion without end", "long_statement")
def _(stage: Stage) -> None:
    stage.start(
        "bi", "with recursive r(n) as (select 1 union all select n + 1 from r) select count(*) from r"
    )


@attack("everything is rolled back", "rollbacks")
def _(stage: Stage) -> None:
    stage.do("bi", *["select nothing from nowhere"] * 300)


@attack("deadlocks one after the other", "deadlocks")
def _(stage: Stage) -> None:
    for _ in range(3):
        one, other = stage.login("etl"), stage.login("etl")
        for conn, first in ((one, 1), (other, 2)):
            conn.execute(f"begin; update main.orders set what = 'x' where id = {first}".encode())
        one.pgconn.send_query(b"update main.orders set what = 'x' where id = 2")
        with suppress(psycopg.Error):
            other.execute("update main.orders set what = 'x' where id = 1")
        while one.pgconn.get_result():
            pass
        for conn in (one, other):
            conn.close()


# What leaves, what goes


@attack("a table is copied out", "exfiltration")
def _(stage: Stage) -> None:
    stage.slowly_copy_out("bi")


@attack("tables are read over and over", "bulk_read")
def _(stage: Stage) -> None:
    stage.again("bi", "select count(what) from main.orders", 3)


@attack("most rows are deleted", "mass_change")
def _(stage: Stage) -> None:
    stage.do("etl", "delete from main.orders where id > 100")


@attack("all rows are written over", "mass_change")
def _(stage: Stage) -> None:
    stage.do("etl", "update main.orders set what = 'gone'")


@attack("a table is emptied", "mass_change")
def _(stage: Stage) -> None:
    stage.do("maker", "truncate orders")


@attack("a table is dropped", "mass_change")
def _(stage: Stage) -> None:
    stage.do("maker", "drop table orders")


# Rights and settings


@attack("a new superuser", "privilege")
def _(stage: Stage) -> None:
    stage.undo(f"drop role {stage.teams.prefix}_mallory")
    stage.run(f"create role {stage.teams.prefix}_mallory superuser")


@attack("a role may go round row security", "privilege")
def _(stage: Stage) -> None:
    stage.undo(f'alter role "{_role(stage, "bi")}" nobypassrls')
    stage.run(f'alter role "{_role(stage, "bi")}" bypassrls')


@attack("a role joins one of the server's", "privilege")
def _(stage: Stage) -> None:
    stage.undo(f'revoke pg_read_all_data from "{_role(stage, "bi")}"')
    stage.run(f'grant pg_read_all_data to "{_role(stage, "bi")}"')


@attack("everybody may read a table", "grant")
def _(stage: Stage) -> None:
    stage.undo("revoke select on main.orders from public")
    stage.run("grant select on main.orders to public")


@attack("a table belongs to somebody else", "grant")
def _(stage: Stage) -> None:
    stage.undo(f'alter table main.orders owner to "{stage.sales.group("owner")}"')
    stage.run(f'alter table main.orders owner to "{stage.teams.server.user}"')


@attack("who may connect is changed", "hba")
def _(stage: Stage) -> None:
    [[place]] = stage.teams.run("show hba_file")
    file = Path(place)
    text = file.read_text()

    def put_back() -> None:
        file.write_text(text)
        stage.run("select pg_reload_conf()")

    stage.open.callback(put_back)
    file.write_text(text + "host all all 10.0.0.0/8 trust\n")
    stage.run("select pg_reload_conf()")


@attack("the server stops to write down logins", "setting")
def _(stage: Stage) -> None:
    stage.open.callback(stage.run, "alter system reset log_connections", "select pg_reload_conf()")
    stage.run("alter system set log_connections to off", "select pg_reload_conf()")


# What fills a server


@attack("a slot that nobody follows", "slot")
def _(stage: Stage) -> None:
    stage.undo("select pg_drop_replication_slot('forgotten')")
    stage.run("select pg_create_physical_replication_slot('forgotten', true)")
    for _ in range(2):
        stage.run(
            "insert into main.orders select max(id) + 1, 'a pen' from main.orders", "select pg_switch_wal()"
        )


@attack("the log outgrows what is meant", "log_size")
def _(stage: Stage) -> None:
    stage.open.callback(stage.run, "alter system reset max_wal_size", "select pg_reload_conf()")
    stage.undo("select pg_drop_replication_slot('hoarder')")
    stage.run("alter system set max_wal_size to '32MB'", "select pg_reload_conf()",
              "select pg_create_physical_replication_slot('hoarder', true)")  # fmt: skip
    for _ in range(6):
        stage.run(
            "insert into main.orders select max(id) + 1, 'a pen' from main.orders", "select pg_switch_wal()"
        )


@attack("a database is filled up", "growth")
def _(stage: Stage) -> None:
    stage.open.callback(stage.do, "maker", "drop table junk")
    stage.do(
        "maker", "create table junk as select x, repeat('x', 1000) as text from generate_series(1, 60000) x"
    )


@attack("the log is not archived", "archive")
def _(stage: Stage) -> None:
    stage.open.callback(
        stage.run, "alter system reset archive_command", "select pg_reload_conf()", "select pg_switch_wal()"
    )
    stage.run("alter system set archive_command to 'false'", "select pg_reload_conf()")
    stage.run(
        "insert into main.orders select max(id) + 1, 'a pen' from main.orders", "select pg_switch_wal()"
    )


@attack("transactions grow old", "wraparound")
def _(stage: Stage) -> None:
    stage.do("maker", f"""
        create temporary table burned (id int);
        do $$ begin for n in 1..{int(FREEZE_MAX_AGE * 1.2)} loop
            begin insert into burned values (n); exception when others then null; end;
        end loop; end $$
    """)  # fmt: skip


# Harmless


@harmless("rows come")
def _(stage: Stage) -> None:
    stage.do(
        "etl", f"insert into main.orders select x, 'new' from generate_series({ROWS + 1000}, {ROWS + 7000}) x"
    )


@harmless("some rows change")
def _(stage: Stage) -> None:
    stage.do("etl", "update main.orders set what = 'done' where id < 1000")


@harmless("some rows go")
def _(stage: Stage) -> None:
    stage.do("etl", "delete from main.orders where id < 1000")


@harmless("a report reads a table whole")
def _(stage: Stage) -> None:
    stage.do("bi", "select * from main.orders")


@harmless("an export whose work it is")
def _(stage: Stage) -> None:
    stage.slowly_copy_out("dumper")


@harmless("a small table is copied out")
def _(stage: Stage) -> None:
    stage.copy_out("bi", "select * from main.orders limit 1000")


@harmless("a table is made, with an index and a view")
def _(stage: Stage) -> None:
    stage.do("maker", "create table more (id int primary key, x int); create index on more (x);"
             " create view seen as select * from more")  # fmt: skip


@harmless("a column is added, with a value for each row")
def _(stage: Stage) -> None:
    stage.do("maker", "alter table orders add column note text default gen_random_uuid()::text")


@harmless("a table is written anew")
def _(stage: Stage) -> None:
    stage.do("maker", "vacuum full orders", "analyze orders")


@harmless("a table is renamed")
def _(stage: Stage) -> None:
    stage.open.callback(stage.do, "maker", "alter table bills rename to orders")
    stage.do("maker", "alter table orders rename to bills")


@harmless("a table is built beside and put in its place")
def _(stage: Stage) -> None:
    stage.do("maker", "begin; create table fresh as table orders; drop table orders;"
             " alter table fresh rename to orders; commit")  # fmt: skip


@harmless("a table for a while is filled, looked at, and dropped")
def _(stage: Stage) -> None:
    stage.do("maker", "create table passing as table orders")
    stage.look()
    stage.do("maker", "drop table passing")


@harmless("a table is emptied and filled in one transaction")
def _(stage: Stage) -> None:
    fill_orders(stage)


@harmless("a password is mistyped three times")
def _(stage: Stage) -> None:
    stage.fail_to_log_in(_role(stage, "bi"), 3)
    stage.login("bi")


@harmless("a password is rotated")
def _(stage: Stage) -> None:
    rotate(stage.teams.connect, stage.sales, stage.teams.store, "bi", datetime.now(UTC), hurry=True)
    stage.login("bi")


@harmless("a login more")
def _(stage: Stage) -> None:
    guest = Login("guest", "reader")
    before = stage.sales
    stage.sales = TeamDatabase(**{**before.__dict__, "logins": (*before.logins, guest)})
    stage.teams.apply(stage.sales)
    stage.look()


@harmless("a few rights are refused, a few statements are wrong")
def _(stage: Stage) -> None:
    stage.do("bi", *["delete from main.orders", "select * from nowhere"] * 4)


@harmless("a pool opens its connections")
def _(stage: Stage) -> None:
    for _ in range(8):
        stage.login("etl")


@harmless("half of the places are taken at noon")
def _(stage: Stage) -> None:
    stage.fill(0.5)


@harmless("a migration's lock that some wait for")
def _(stage: Stage) -> None:
    holder = stage.login("maker")
    holder.execute("begin; lock table orders")
    for _ in range(3):
        stage.start("etl", "select count(*) from main.orders")
    stage.look()
    holder.execute("commit")


@harmless("a sort that spills a little")
def _(stage: Stage) -> None:
    stage.do(
        "bi", "set work_mem to '64kB'", "select x from generate_series(1, 200000) x order by md5(x::text)"
    )


@harmless("a batch of small transactions")
def _(stage: Stage) -> None:
    stage.do("etl", *["update main.orders set what = 'paid' where id = 2000"] * 150)


@harmless("memory for sorts is raised")
def _(stage: Stage) -> None:
    stage.open.callback(stage.run, "alter system reset work_mem", "select pg_reload_conf()")
    stage.run("alter system set work_mem to '24MB'", "select pg_reload_conf()")


def fill_orders(stage: Stage) -> None:
    """The table of which all tell, as it was."""
    stage.do("maker", "create table if not exists orders (id int primary key, what text)", "begin; truncate orders;"
             f" insert into orders (id, what) select x, 'a pen' from generate_series(1, {ROWS}) x; commit",
             "analyze orders")  # fmt: skip
