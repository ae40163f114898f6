"""Our own server keeps its promises, whatever killed, moved or crowded it."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import psycopg
import pytest

from datops_assets.errors import WarehouseError
from datops_assets.resources.embedded import EmbeddedServer
from datops_assets.resources.embedded import server as server_module
from datops_assets.resources.embedded.postmaster import list_servers
from datops_assets_tests.scratch import scratch_folder

ROOT = Path(__file__).parents[2]
START = """
import sys
from pathlib import Path
from datops_assets.resources.embedded import EmbeddedServer
print(EmbeddedServer(Path(sys.argv[1]), durable=False).start().port)
"""


@pytest.fixture
def own(tmp_path):
    """A server of this test's own, not started yet."""
    server = EmbeddedServer(tmp_path / "postgres", durable=False)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def kept():
    """A server that the tests of this module start, kill and start again."""
    folder = scratch_folder(f"datops-test-{os.getpid()}-")
    server = EmbeddedServer(folder / "postgres")
    server.start()
    yield server
    server.stop()
    shutil.rmtree(folder)


def connect(server, dbname="datops"):
    found = server.start()
    login = {"host": found.host, "port": found.port, "user": found.user, "password": found.password}
    return psycopg.connect(**login, dbname=dbname, autocommit=True)


def one(server, query, dbname="datops"):
    with connect(server, dbname) as conn:
        return conn.execute(query).fetchone()[0]


def start_in_another_process(folder, *prefix, **options):
    subprocess.run(
        [*prefix, sys.executable, "-c", START, folder], cwd=ROOT, check=True, timeout=60, **options
    )


def kill(server):
    """kill -9 of the postmaster; its pid file stays."""
    pid = server.status().pid
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while server.status().pid and time.monotonic() < deadline:
        time.sleep(0.01)
    return pid


@pytest.mark.parametrize(
    ("parameter", "expected"),
    [
        ("server_encoding", "UTF8"),
        ("data_checksums", "on"),
        ("timezone", "UTC"),
        ("wal_level", "logical"),
        ("summarize_wal", "on"),
        ("listen_addresses", "127.0.0.1"),
        ("password_encryption", "scram-sha-256"),
        ("scram_iterations", "4096"),
        ("log_destination", "jsonlog"),
        ("fsync", "on"),
    ],
)
def test_it_is_set_up_for_a_warehouse(kept, parameter, expected):
    assert one(kept, f"show {parameter}") == expected


def test_a_forgotten_slot_cannot_fill_the_disk(kept):
    assert one(kept, "select setting::int from pg_settings where name = 'max_slot_wal_keep_size'") > 0


def test_warehouse_and_history_have_a_database_each(kept):
    assert one(kept, "select current_database()", "dagster") == "dagster"
    assert one(kept, "select current_database()", "datops") == "datops"


def test_text_sorts_the_same_on_every_machine(kept):
    letters = "unnest(array['b', 'A', 'é', 'a', 'B']) letter"
    assert one(kept, f"select string_agg(letter, '' order by letter) from {letters}") == "ABabé"


def test_a_running_server_is_found_not_started_again(kept):
    """Nor is the lock waited for that a start takes: it is ours meanwhile."""
    before = kept.status()
    with kept.lock():
        EmbeddedServer(kept.folder).start()
    assert kept.status() == before


def test_the_log_is_json_and_repeats_no_cell_value(kept):
    with connect(kept) as conn, pytest.raises(psycopg.errors.UniqueViolation):
        conn.execute("create table logged (id text primary key)")
        conn.execute("insert into logged values ('4111 1111 1111 1111'), ('4111 1111 1111 1111')")
    log = "".join(file.read_text() for file in (kept.base / "log").glob("*.json"))
    assert '"message":"database system is ready to accept connections"' in log
    assert "4111" not in log


def test_the_password_is_in_no_argument_no_variable_and_no_log(kept):
    password = (kept.base / "password").read_text()
    process = psutil.Process(kept.status().pid)
    logs = "".join(file.read_text() for file in (kept.base / "log").iterdir())
    assert len(password) >= 32
    assert password not in " ".join(process.cmdline()) + str(process.environ()) + logs
    assert password not in repr(kept.start())


def test_only_its_owner_reads_password_data_and_socket(kept):
    for path in (kept.base / "password", kept.data, kept.base / "log", kept.status().socket):
        assert path.stat().st_mode & 0o077 == 0, path


def test_nobody_gets_in_without_the_password(kept):
    found = kept.start()
    for host in (found.host, str(found.socket)):
        with pytest.raises(psycopg.OperationalError, match="authentication failed"):
            psycopg.connect(host=host, port=found.port, user=found.user, password="wrong", dbname="datops")


def test_it_outlives_the_process_that_started_it_and_holds_nothing_of_it(tmp_path):
    folder = tmp_path / "postgres"
    secret = (tmp_path / "open-file").open("w")
    os.set_inheritable(secret.fileno(), True)
    try:
        start_in_another_process(folder, close_fds=False)
        pid = EmbeddedServer(folder).status().pid
        held = [str(file.readlink()) for file in Path(f"/proc/{pid}/fd").iterdir()]
        assert os.getsid(pid) != os.getsid(0)
        assert secret.name not in held
    finally:
        EmbeddedServer(folder).stop()


def test_committed_rows_survive_kill_9_of_the_server(kept):
    with connect(kept) as conn:
        conn.execute("create table survivors as select 42 as id")
    before = kill(kept)
    assert one(kept, "select id from survivors") == 42
    assert kept.status().pid != before


def test_a_busy_backend_that_outlives_the_server_does_not_keep_it_down(kept):
    conn = connect(kept)
    with ThreadPoolExecutor(1) as threads:
        busy = threads.submit(conn.execute, "select count(*) from generate_series(1, 10000000000)")
        time.sleep(0.3)
        kill(kept)
        assert list_servers(kept.data)
        assert one(kept, "select 1") == 1
        with pytest.raises(psycopg.OperationalError):
            busy.result()


def test_a_pid_file_that_names_a_stranger_is_not_believed(kept):
    kill(kept)
    file = kept.data / "postmaster.pid"
    file.write_text(f"{os.getpid()}\n" + file.read_text().partition("\n")[2])
    assert kept.address() is None
    assert one(kept, "select 1") == 1


def test_a_pid_file_that_a_crash_left_empty_is_not_in_the_way(kept):
    kill(kept)
    (kept.data / "postmaster.pid").write_text("")
    assert one(kept, "select 1") == 1


def test_a_pid_file_that_names_a_stranger_does_not_get_it_stopped(kept):
    kill(kept)
    file = kept.data / "postmaster.pid"
    stranger = subprocess.Popen(["sleep", "60"])
    file.write_text(f"{stranger.pid}\n" + file.read_text().partition("\n")[2])
    assert kept.stop() is False
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()


def test_a_taken_port_means_another_port(kept):
    port = kept.start().port
    kept.stop()
    with socket.socket() as taker:
        taker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taker.bind(("127.0.0.1", port))
        taker.listen()
        assert kept.start().port != port


def test_the_port_stays_the_same_otherwise(kept):
    port = kept.start().port
    kept.stop()
    assert kept.start().port == port


def test_a_port_somebody_insists_on_is_not_exchanged(kept):
    kept.stop()
    with socket.socket() as taker:
        taker.bind(("127.0.0.1", 0))
        taker.listen()
        port = taker.getsockname()[1]
        with pytest.raises(WarehouseError, match=rf"port {port} \(DATOPS_PG_PORT\) is taken; free it"):
            EmbeddedServer(kept.folder, port=port).start()


def test_stop_ends_it_and_leaves_no_socket(kept):
    folder = kept.status().socket or kept.start().socket
    assert kept.stop() is True
    assert kept.stop() is False
    assert not folder.exists()
    assert not list_servers(kept.data)


def test_killed_servers_leave_one_socket_folder_at_most(kept):
    first = kept.start().socket
    kill(kept)
    kept.start()
    assert not first.exists()


def test_four_processes_that_start_it_at_once_get_one_server(tmp_path):
    folder = tmp_path / "postgres"
    command = [sys.executable, "-c", START, folder]
    starters = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) for _ in range(4)]
    try:
        ports = {starter.communicate(timeout=60)[0] for starter in starters}
        assert [starter.returncode for starter in starters] == [0, 0, 0, 0]
        assert len(ports) == 1
        assert len([pid for pid in list_servers(folder.resolve() / "data") if is_postmaster(pid)]) == 1
    finally:
        EmbeddedServer(folder).stop()


def is_postmaster(pid):
    return "-D" in psutil.Process(pid).cmdline()


def test_a_starter_killed_in_the_middle_leaves_nothing_in_the_way(own):
    starter = subprocess.Popen([sys.executable, "-c", START, own.folder], cwd=ROOT)
    while not list(own.folder.glob("cluster-*/base")):
        time.sleep(0.005)
    starter.kill()
    starter.wait()
    assert one(own, "select 1") == 1


def test_a_project_may_lie_deep_and_be_named_oddly(tmp_path):
    folder = tmp_path / ("deep " * 20) / "it's ünder\"here" / "postgres"
    server = EmbeddedServer(folder, durable=False)
    assert len(str(folder)) > 107
    try:
        assert one(server, "select 1") == 1
        assert list((folder / "log").glob("*.json"))
    finally:
        server.stop()


def test_a_project_renamed_while_its_server_runs_keeps_its_server(tmp_path):
    before = EmbeddedServer(tmp_path / "before" / "postgres", durable=False)
    port = before.start().port
    (tmp_path / "before").rename(tmp_path / "after")
    after = EmbeddedServer(tmp_path / "after" / "postgres", durable=False)
    try:
        assert after.start().port == port
    finally:
        assert after.stop()


def test_own_lines_are_read_last(own):
    own.start()
    own.stop()
    (own.base / "own.conf").write_text("work_mem = '5MB'\n")
    assert one(own, "show work_mem") == "5MB"


def test_a_wrong_own_line_is_said(own):
    own.start()
    own.stop()
    (own.base / "own.conf").write_text("work_memory = '5MB'\n")
    with pytest.raises(
        WarehouseError, match=r"parameter \"work_memory\" in file .*own.conf.* line 1.* run: datops doctor"
    ):
        own.start()


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WarehouseError, match="set DATOPS_HOME"):
        EmbeddedServer(tmp_path / "file" / "postgres").start()


def test_a_lost_password_is_said(own):
    own.start()
    (own.base / "password").rename(own.base / "lost")
    with pytest.raises(WarehouseError, match=r"postgres/password is gone; restore it"):
        own.start()
    (own.base / "lost").rename(own.base / "password")


def test_programs_that_are_not_there_are_said(tmp_path):
    with pytest.raises(WarehouseError, match="postgres, initdb, psql missing; set DATOPS_PG_BIN"):
        EmbeddedServer(tmp_path / "postgres", pg_bin=tmp_path).start()


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root changes accounts")


@as_root
def test_root_runs_it_in_a_user_namespace_and_keeps_the_files(kept):
    kept.start()
    namespaces = {Path(f"/proc/{process}/ns/user").readlink() for process in (kept.status().pid, "self")}
    assert len(namespaces) == 2
    assert kept.data.stat().st_uid == 0


@as_root
@pytest.mark.parametrize("uid", [65534, 23456])
def test_an_ordinary_user_with_or_without_a_name_runs_it(tmp_path, uid):
    """Containers often run under an id that /etc/passwd lacks, which initdb refuses."""
    become = ("unshare", "--user", f"--map-user={uid}", f"--map-group={uid}")
    folder = tmp_path / "postgres"
    try:
        start_in_another_process(folder, *become)
        assert one(EmbeddedServer(folder), "select 1") == 1
    finally:
        EmbeddedServer(folder).stop()


@pytest.fixture
def no_namespaces(monkeypatch):
    """A machine where root may not make a user namespace, and the folder that such servers move to."""
    folder = scratch_folder(f"datops-test-{os.getpid()}-")
    monkeypatch.setenv("PATH", str(folder))  # no unshare there
    monkeypatch.setattr(server_module, "_REACHABLE", folder)
    yield folder
    shutil.rmtree(folder)


@as_root
def test_root_without_namespaces_gives_it_to_nobody_in_a_folder_nobody_reaches(tmp_path, no_namespaces):
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    server = EmbeddedServer(private / "postgres", durable=False)
    try:
        assert one(server, "select 1") == 1
        assert psutil.Process(server.status().pid).username() == "nobody"
        assert server.base.parent == no_namespaces
        assert EmbeddedServer(private / "postgres").address() == server.address()
        assert server.stop()
        assert one(server, "select 1") == 1
    finally:
        server.stop()


@as_root
def test_root_runs_the_server_of_an_ordinary_user_as_that_user(no_namespaces):
    folder = no_namespaces / "postgres"
    server = EmbeddedServer(folder, durable=False)
    no_namespaces.chmod(0o755)
    try:
        server.start()
        server.stop()
        for path in (folder, *folder.rglob("*")):
            os.chown(path, 12345, 12345)
        server.start()
        assert psutil.Process(server.status().pid).uids().real == 12345
    finally:
        server.stop()


@as_root
def test_a_server_made_in_a_namespace_still_runs_where_there_are_none(tmp_path, no_namespaces, monkeypatch):
    no_namespaces.chmod(0o755)
    server = EmbeddedServer(no_namespaces / "postgres", durable=False)
    try:
        with monkeypatch.context() as patch:
            patch.setenv("PATH", "/usr/bin:/bin")
            server.start()
            server.stop()
        assert server.data.stat().st_uid == 0
        assert one(server, "select 1") == 1
    finally:
        server.stop()
