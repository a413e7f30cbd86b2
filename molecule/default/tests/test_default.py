"""What a provisioned fleet does: it records, loads and merges, keeps to its limits, and gets up when it is hit."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.fleet import INVENTORY, ROOT, datalake, host, unit, variables, wait_until

HOSTS = ("db1", "ing1", "ing2")
INGESTORS = ("ing1", "ing2")
DATABASES = {"db1": "datalake", "ing1": "ingestor", "ing2": "ingestor"}
CHANNELS = ("trades", "quotes", "book_events")
PYTHON = "/opt/cryptopip/current/venv/bin/python"


def listens(name: str) -> bool:
    """Whether the recorder says that all its connections are subscribed."""
    words = unit(name, "cryptopip-recorder@binance", "StatusText").split()
    return len(words) > 2 and words[0] == words[2] != "0"


def connect(name: str, **conninfo: str) -> tuple[int, str]:
    """Connect from a host, to db1's datalake unless told otherwise; the exit code, and what was said."""
    wanted = {"host": variables("db1")["fleet_address"], "dbname": "datalake", "connect_timeout": "10", **conninfo}
    program = f"import psycopg; print(psycopg.connect(**{wanted!r}).info.dbname)"
    answer = host(name).run("%s -c %s", PYTHON, program)
    return int(answer.rc), str(answer.stdout) + str(answer.stderr)


def reader() -> dict[str, str]:
    """Login of the reading role."""
    return {"user": "cryptopip_reader", "password": variables("db1")["cryptopip_passwords"]["reader"]}


@pytest.mark.parametrize("name", INGESTORS)
@pytest.mark.parametrize("service", ["cryptopip-recorder@binance", "cryptopip-loader@binance"])
def test_services_run_and_start_at_boot_under_a_user_of_their_own(name: str, service: str) -> None:
    assert host(name).service(service).is_running
    assert host(name).service(service).is_enabled
    process = unit(name, service, "MainPID")
    assert host(name).check_output("stat -c %%U /proc/%s", process) == "cryptopip"
    assert "NoNewPrivs:\t1" in host(name).file(f"/proc/{process}/status").content_string


@pytest.mark.parametrize("name", INGESTORS)
@pytest.mark.parametrize(
    ("service", "writes"), [("cryptopip-recorder@binance", True), ("cryptopip-loader@binance", False)]
)
def test_services_find_everything_but_their_own_folder_read_only(name: str, service: str, writes: bool) -> None:
    # As root in the service's own view of the file system: more than the service may.
    inside = f"nsenter --target {unit(name, service, 'MainPID')} --mount"
    for folder in ("/usr", "/etc/cryptopip", "/opt/cryptopip", "/var/lib", "/var/lib/cryptopip-postgresql"):
        assert host(name).file(folder).is_directory
        refused = host(name).run(f"{inside} touch {folder}/cryptopip-test-probe")
        assert refused.rc != 0
        assert "Read-only file system" in refused.stderr
    assert (host(name).run(f"{inside} test -w /var/lib/cryptopip/journal").rc == 0) == writes


@pytest.mark.parametrize("name", HOSTS)
def test_hosts_have_the_accounts_and_keep_utc(name: str) -> None:
    account = host(name).user("cryptopip")
    assert (account.home, account.shell) == ("/var/lib/cryptopip", "/usr/sbin/nologin")
    assert host(name).group("cryptopip-operators").exists
    assert host(name).check_output("date +%Z") == "UTC"
    assert host(name).file("/etc/timezone").content_string == "Etc/UTC\n"
    assert host(name).sysctl("net.ipv4.tcp_keepalive_time") == 60


@pytest.mark.parametrize("name", HOSTS)
def test_the_time_service_is_configured_and_cannot_start_here(name: str) -> None:
    settings = host(name).check_output("chronyd -p -f /etc/chrony/chrony.conf").splitlines()  # as chrony reads it
    assert {"pool 2.debian.pool.ntp.org iburst", "makestep 1 3"} <= set(settings)
    assert not host(name).service("chrony").is_running


def test_sync_is_started_by_its_timer() -> None:
    assert host("db1").service("cryptopip-sync.timer").is_running
    assert host("db1").service("cryptopip-sync.timer").is_enabled


@pytest.mark.parametrize("name", HOSTS)
def test_no_host_can_set_the_clock_of_the_machine(name: str) -> None:
    status = host(name).file("/proc/1/status").content_string
    bounding = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapBnd"))
    assert not bounding & 1 << 25, "CAP_SYS_TIME is in the bounding set"


@pytest.mark.parametrize("name", HOSTS)
def test_the_database_listens_on_loopback_and_the_fleet_address_only(name: str) -> None:
    lines = host(name).check_output("ss -Hltn 'sport = :5432'").splitlines()
    assert {line.split()[3] for line in lines} == {"127.0.0.1:5432", f"{variables(name)['fleet_address']}:5432"}


@pytest.mark.parametrize("name", HOSTS)
def test_the_engine_listens_on_no_port(name: str) -> None:
    assert "dockerd" not in host(name).check_output("ss -Hltnp")


def test_a_reader_gets_in_over_tls_with_a_certificate_of_the_fleet() -> None:
    code, said = connect("db1", sslmode="verify-full", sslrootcert="/etc/cryptopip/tls/ca.crt", **reader())
    assert (code, said.strip()) == (0, "datalake")


@pytest.mark.parametrize("name", HOSTS)
def test_a_connection_without_tls_is_refused(name: str) -> None:
    place = {"host": variables(name)["fleet_address"], "dbname": DATABASES[name], **reader()}
    assert connect(name, sslmode="require", **place)[0] == 0
    code, said = connect(name, sslmode="disable", **place)
    assert code != 0
    assert "no encryption" in said


@pytest.mark.parametrize("name", HOSTS)
@pytest.mark.parametrize("address", ["127.0.0.1", "fleet_address"])
def test_the_superuser_is_refused_over_tcp(name: str, address: str) -> None:
    place = {"host": variables(name).get(address, address), "dbname": DATABASES[name]}
    code, said = connect(name, sslmode="require", user="postgres", password="whatever-it-is", **place)
    assert code != 0
    assert "rejects connection" in said
    assert 'user "postgres"' in said


def test_a_wrong_password_is_refused() -> None:
    code, said = connect("db1", sslmode="require", user="cryptopip_reader", password="not-the-password-of-it")
    assert code != 0
    assert "password authentication failed" in said


def test_a_reader_cannot_write() -> None:
    refused = host("db1").run(
        "docker exec cryptopip-timescaledb psql -U postgres -d datalake -c %s",
        "SET ROLE cryptopip_reader; DELETE FROM trades",
    )
    assert refused.rc != 0
    assert "permission denied" in refused.stderr


@pytest.mark.parametrize("name", INGESTORS)
def test_passwords_are_for_the_service_alone(name: str) -> None:
    file = host(name).file("/etc/cryptopip/collector.pgpass")
    assert (file.user, file.mode) == ("cryptopip", 0o600)


@pytest.mark.parametrize("channel", CHANNELS)
def test_rows_keep_arriving_in_the_datalake(channel: str) -> None:
    before = int(datalake(f"SELECT count(*) FROM {channel}"))
    wait_until(lambda: int(datalake(f"SELECT count(*) FROM {channel}")) > before, f"more {channel}")


def test_both_ingestors_cover_every_channel() -> None:
    question = "SELECT count(DISTINCT (ingestor, channel)) FROM coverage_intervals"
    wait_until(lambda: datalake(question) == "6", "coverage of 3 channels by 2 ingestors")


def test_a_process_over_its_memory_limit_is_killed_and_started_again() -> None:
    service, control = (
        "cryptopip-loader@binance.service",
        "/run/systemd/system.control/cryptopip-loader@binance.service.d",
    )
    ing2 = host("ing2")
    since = ing2.check_output("date +%s")
    # Far below what it needs. On cgroup v1 a limit under present use is refused, so it must start with it.
    ing2.check_output("systemctl set-property --runtime %s MemoryMax=16M", service)
    try:
        ing2.check_output("systemctl restart --no-block %s", service)

        def killed() -> bool:
            lines = ing2.check_output("journalctl --no-pager -o cat -u %s --since=@%s", service, since)
            return "status=9/KILL" in lines or "oom-kill" in lines

        wait_until(killed, "the kernel to kill the loader")
    finally:
        ing2.check_output("rm -r %s && systemctl daemon-reload && systemctl restart %s", control, service)
    assert ing2.service(service).is_running
    assert unit("ing2", service, "MemoryMax") == str(1024**3)


def test_a_service_that_hangs_is_ended_by_its_watchdog_and_started_again() -> None:
    service = "cryptopip-loader@binance.service"
    drop_in = f"/run/systemd/system/{service}.d"
    ing2 = host("ing2")
    since = ing2.check_output("date +%s")
    # Its own minute, only shorter.
    ing2.check_output(f"mkdir -p {drop_in} && printf '[Service]\nWatchdogSec=10\n' >{drop_in}/watchdog.conf")
    try:
        ing2.check_output("systemctl daemon-reload && systemctl restart %s", service)
        process = unit("ing2", service, "MainPID")
        ing2.check_output("kill -STOP %s", process)
        wait_until(lambda: unit("ing2", service, "MainPID") not in {process, "0"}, "a new loader")
        lines = ing2.check_output("journalctl --no-pager -o cat -u %s --since=@%s", service, since)
        assert "Watchdog timeout" in lines
    finally:
        ing2.check_output("rm -r %s && systemctl daemon-reload && systemctl restart %s", drop_in, service)
    assert ing2.service(service).is_running
    assert unit("ing2", service, "WatchdogUSec") == "1min"


def test_a_pull_that_hangs_is_ended_and_the_next_one_works() -> None:
    service = "cryptopip-sync.service"
    drop_in = f"/run/systemd/system/{service}.d"
    db1 = host("db1")
    since = db1.check_output("date +%s")
    psql = "docker exec %s cryptopip-timescaledb psql -XAtq -U postgres -d datalake -c %s"
    # Its own hour, only shorter.
    db1.check_output(f"mkdir -p {drop_in} && printf '[Service]\nTimeoutStartSec=10\n' >{drop_in}/timeout.conf")
    try:
        db1.check_output("systemctl daemon-reload")
        db1.check_output(psql, "--detach", "BEGIN; LOCK TABLE watermarks; SELECT pg_sleep(600)")
        wait_until(
            lambda: (
                "operation timed out" in db1.check_output("journalctl --no-pager -u %s --since=@%s", service, since)
            ),
            "systemd to end the pull",
        )
    finally:
        db1.check_output(
            psql,
            "--interactive",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE query LIKE '%pg_sleep(600)' AND pid <> pg_backend_pid()",
        )
        db1.check_output("rm -r %s && systemctl daemon-reload", drop_in)
    db1.check_output("systemctl start %s", service)
    assert unit("db1", service, "TimeoutStartUSec") == "1h"


def test_a_killed_recorder_comes_back_and_the_datalake_misses_nothing() -> None:
    wait_until(lambda: listens("ing2"), "the other ingestor to listen")
    process = unit("ing1", "cryptopip-recorder@binance", "MainPID")
    host("ing1").check_output("kill -KILL %s", process)
    wait_until(lambda: unit("ing1", "cryptopip-recorder@binance", "MainPID") not in {process, "0"}, "a new recorder")
    wait_until(lambda: listens("ing1"), "the new recorder to subscribe")
    crashed = "SELECT count(*) FROM connections WHERE ingestor = 'ing1' AND ended_by = 'crash'"
    wait_until(lambda: int(datalake(crashed)) > 0, "the crash in the datalake")
    # Trade ids of this exchange are consecutive, so the count alone shows whether one is missing or there twice.
    dense = (
        "SELECT bool_and(last - first + 1 = rows) FROM (SELECT instrument_id, min(trade_id::bigint) AS first, "
        "max(trade_id::bigint) AS last, count(*) AS rows FROM trades GROUP BY instrument_id) AS each"
    )
    wait_until(lambda: datalake(dense) == "t", "trades without a hole", 30)


def test_continuity_can_be_asked_ad_hoc() -> None:
    answer = subprocess.run(
        ["ansible", "datalake", "-i", INVENTORY, "--one-line", "-m", "cryptopip.marketdata.continuity_check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "db1 | SUCCESS" in answer.stdout, answer.stdout + answer.stderr
    found = json.loads(answer.stdout[answer.stdout.index("{") :])
    assert not found["changed"]
    assert {entry["channel"] for entry in found["channels"]} == set(CHANNELS)


def test_bars_are_made_of_the_trades() -> None:
    wait_until(lambda: datalake("SELECT count(*) > 0 FROM ohlcv_1s") == "t", "bars")
    assert unit("db1", "cryptopip-derive.service", "Result") == "success"


def sidecar(*command: str) -> str:
    """The output of a command in the WAL-E container, which must succeed."""
    return str(host("db1").check_output("docker exec cryptopip-wale " + " ".join(command)))


def test_the_datalake_is_backed_up_and_its_wal_archived() -> None:
    for timer in ("backup", "backup-status", "restore-drill"):
        assert host("db1").service(f"cryptopip-{timer}.timer").is_running
        assert host("db1").service(f"cryptopip-{timer}.timer").is_enabled
    (first,) = json.loads(sidecar("cryptopip-wale", "list"))["backups"]  # of provisioning
    assert first["verified"] is True
    sidecar("wal-e", "backup-push", "/var/lib/postgresql/data/pg_data")
    host("db1").check_output(
        "systemctl start --wait cryptopip-backup.service"
    )  # keeps both, and takes none: one is young
    assert unit("db1", "cryptopip-backup.service", "Result") == "success"
    names = [backup["name"] for backup in json.loads(sidecar("cryptopip-wale", "list"))["backups"]]
    assert [name in sidecar("wal-e", "backup-list") for name in names] == [True, True]
    sidecar("cryptopip-wale", "verify", names[1])
    raised = json.loads(host("db1").run("cryptopip-backup status").stdout)["alarms"]
    assert [alarm for alarm in raised if alarm["name"] != "wal_space"] == []  # of which this machine may have little
    metrics = host("db1").file("/var/lib/prometheus/node-exporter/cryptopip-backup.prom").content_string
    assert 'cryptopip_backup_alarm{alarm="backup"} 0' in metrics


def test_a_restore_of_the_datalake_is_rehearsed() -> None:
    host("db1").check_output("systemctl start --wait cryptopip-restore-drill.service")
    assert unit("db1", "cryptopip-restore-drill.service", "Result") == "success"


def test_the_archive_holds_every_table_and_equals_the_datalake() -> None:
    assert host("db1").service("cryptopip-archive.timer").is_running
    assert host("db1").service("cryptopip-archive.timer").is_enabled
    host("db1").check_output("systemctl start --wait cryptopip-archive.service")
    assert unit("db1", "cryptopip-archive.service", "Result") == "success"
    months = host("db1").file("/var/lib/cryptopip/archive").listdir()
    month = next(name for name in months if name.count("-") == 1 and name[-1].isdigit())
    manifest = json.loads(host("db1").file(f"/var/lib/cryptopip/archive/{month}/manifest.json").content_string)
    assert {"trades", "quotes", "book_events", "instruments"} <= {entry["table"] for entry in manifest["entries"]}


def test_what_the_archive_holds_may_be_pruned_by_ingestors() -> None:
    host("db1").check_output("systemctl start --wait cryptopip-archive-verify.service")
    assert unit("db1", "cryptopip-archive-verify.service", "Result") == "success"
    assert datalake("SELECT count(*) > 0 FROM protections WHERE source = 'archive'") == "t"
    assert datalake("SELECT protected_until() > now() - interval '1 hour'") == "t"


def test_the_archive_is_copied_off_site_and_equal_there() -> None:
    for timer in ("cryptopip-offsite.timer", "cryptopip-offsite-verify.timer"):
        assert host("db1").service(timer).is_running
        assert host("db1").service(timer).is_enabled
    for service in ("cryptopip-offsite.service", "cryptopip-offsite-verify.service"):
        host("db1").check_output(f"systemctl start --wait {service}")
        assert unit("db1", service, "Result") == "success"
    folder = host("db1").check_output("mktemp -d")
    fetched = host("db1").check_output(f"/opt/cryptopip/bin/cryptopip offsite fetch archive {folder} --json")
    assert json.loads(fetched)["written"] > 10
    months = "diff --recursive --exclude '.*' --exclude '*.tar.gz'"
    assert host("db1").run(f"{months} /var/lib/cryptopip/archive {folder}").stdout == ""
    secret = host("db1").file("/etc/cryptopip/rclone.conf")
    assert (secret.user, secret.mode) == ("root", 0o600)
