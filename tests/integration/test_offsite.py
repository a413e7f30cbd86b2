"""Off-site copies on remotes that really answer: equal there, never overwritten, damage seen, fetched as they were."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.integration.harness.process import ROOT, until
from tests.integration.offsite_harness import PASSWORD, Site, crypt, free_port, s3, sftp, tree, webdav
from tests.unit.journal.helpers import writer

Serve = Callable[[Path], AbstractContextManager[dict[str, str]]]
FILES = {
    "2026-11/trades.csv.gz": b"trades",
    "2026-11/manifest.json": b'{"a": 1}',
    "2026-11.tar.gz": b"bundle",
    "deep/er/with a space, and ünïcode": b"no suffix",
    "deep/empty.bin": b"",
    "equal": b"trades",
}
HIDDEN = {".lock": b"", "2026-11/.trades.csv.gz.12.tmp": b"half", "skipped/x": b"excluded"}


# The weakest that rclone knows (no hashes, no times), and one of the strongest.
KINDS: dict[str, tuple[Serve, bool]] = {"webdav-crypt": (webdav, True), "s3": (s3, False)}


@pytest.fixture(params=KINDS)
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Site, str]]:
    serve, encrypted = KINDS[request.param]
    with serve(tmp_path / "server") as base:
        site = Site(tmp_path, {"base": base, "secret": crypt("base:bucket/enc")})
        yield site, "secret:it" if encrypted else "base:bucket/it"


@pytest.fixture
def local(tmp_path: Path) -> Site:
    """A folder as remote, plain and encrypted: its objects can be damaged, and it has hashes."""
    store = tmp_path / "store"
    return Site(tmp_path, {"base": {"type": "alias", "remote": str(store)}, "secret": crypt("base:")})


def test_what_was_copied_comes_back_byte_for_byte(anywhere: tuple[Site, str], tmp_path: Path) -> None:
    site, remote = anywhere
    site.write(FILES | HIDDEN)
    site.configure(remote, versions=True, exclude=["skipped/*"])
    assert (site.copied()["written"], site.copied()["written"]) == (len(FILES), 0)
    assert len(site.objects(remote)) == len(FILES)
    assert "All agree: 6 objects" in site.run("verify", "it")
    site.run("fetch", "it", tmp_path / "back")
    assert tree(tmp_path / "back") == FILES
    site.run("fetch", "it", tmp_path / "month", "--below", "2026-11")
    assert sorted(tree(tmp_path / "month")) == ["2026-11/manifest.json", "2026-11/trades.csv.gz"]


def test_of_a_file_that_is_written_again_both_contents_stay(anywhere: tuple[Site, str], tmp_path: Path) -> None:
    """The second has the same length: only reading it tells them apart where the remote keeps no times."""
    site, remote = anywhere
    site.write(FILES)
    site.configure(remote, versions=True)
    first = site.copied()
    before = {name: site.content(remote, name) for name in site.objects(remote)}
    site.write({"2026-11/trades.csv.gz": b"TRADES"})
    second = site.copied()
    assert (second["written"], second["kept"]) == (1, len(FILES) - 1)
    after = {name: site.content(remote, name) for name in site.objects(remote)}
    assert after.items() >= before.items()
    assert sorted(after[name] for name in after.keys() - before.keys()) == [b"TRADES"]
    for listed, content in ((first["index"][:-8], b"trades"), ("", b"TRADES")):
        folder = tmp_path / f"back{content.decode()}"
        site.run("fetch", "it", folder, *(["--index", listed] if listed else []))
        assert tree(folder) == FILES | {"2026-11/trades.csv.gz": content}


def test_without_versions_a_file_that_is_written_again_is_told_and_its_copy_kept(
    anywhere: tuple[Site, str], tmp_path: Path
) -> None:
    site, remote = anywhere
    site.write(FILES)
    site.configure(remote)
    site.copied()
    assert site.objects(remote).keys() == FILES.keys()
    site.write({"equal": b"TRADES", "new": b"1"})
    assert [problem.partition(":")[0] for problem in site.copied(code=1)["problems"]] == ["equal"]
    (tmp_path / "state" / "it.json").unlink()  # a new host, which does not remember what it copied
    again = site.copied(code=1)
    assert [problem.partition(":")[0] for problem in again["problems"]] == ["equal"]
    assert (site.content(remote, "equal"), site.content(remote, "new")) == (b"trades", b"1")


@pytest.mark.parametrize(("remote", "by"), [("base:it", "hashes"), ("secret:it", "download"), ("secret:it", "hashes")])
def test_damage_of_the_same_size_is_found_and_never_fetched(local: Site, tmp_path: Path, remote: str, by: str) -> None:
    local.write({f"f{n}": os.urandom(3000) for n in range(4)} | {"small": b"x"})
    local.configure(remote, verify=by)
    local.copied()
    damaged = max((tmp_path / "store").rglob("*"), key=lambda path: path.is_file() and path.stat().st_size)
    content = bytearray(damaged.read_bytes())
    content[2000] ^= 1
    damaged.write_bytes(content)
    assert local.copied()["written"] == 0, "a copy that does not read does not see it"
    said = local.run("verify", "it", code=1)
    assert said.count("its content is not what was copied") + said.count("could not be read whole") == 1
    assert "1 findings" in said
    assert "nothing" not in local.run("fetch", "it", tmp_path / "back", code=3)
    assert tree(local.source).items() >= {k: v for k, v in tree(tmp_path / "back").items() if k[0] != "."}.items()
    damaged.unlink()
    assert "it is not there" in local.run("verify", "it", code=1)
    assert local.copied()["written"] == 1, "what is gone is copied again"
    assert "All agree" in local.run("verify", "it")


def test_hashes_are_not_taken_for_granted(tmp_path: Path) -> None:
    with webdav(tmp_path / "server") as base:
        site = Site(tmp_path, {"base": base, "secret": crypt("base:enc")})
        site.write(FILES)
        for remote in ("base:it", "secret:it"):
            site.configure(remote, verify="hashes")
            assert "keeps no hashes" in site.run("copy", code=3)
            site.configure(remote)
            site.copied()


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def start(site: Site) -> subprocess.Popen[bytes]:
    return subprocess.Popen(site.command("copy"), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def sizes(store: Path) -> dict[Path, int]:
    return {path: path.stat().st_size for path in store.rglob("*") if path.is_file()}


def kill_while_bytes_flow(running: subprocess.Popen[bytes], store: Path, *, secrets: list[str]) -> None:
    """The command and rclone, SIGKILL; before, neither has a secret among its arguments."""
    known = sizes(store)

    def grows() -> bool:
        return any(size > known.get(path, 0) for path, size in sizes(store).items())

    until(lambda: grows() or running.poll() is not None, "bytes flow", pause=0.01)
    assert running.poll() is None, "it ended before it was killed: more to copy, or a lower bandwidth"
    left = children(running.pid)
    for process in [running.pid, *left]:
        argv = Path(f"/proc/{process}/cmdline").read_text()
        assert not [secret for secret in secrets if secret in argv]
    running.send_signal(signal.SIGKILL)
    running.wait()
    for child in left:
        os.kill(child, signal.SIGKILL)
    until(lambda: not [child for child in left if is_running(child)], "rclone is gone")


def is_running(pid: int) -> bool:
    """Not gone, and no zombie either."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except OSError:
        return False


@pytest.mark.parametrize(("serve", "seed"), [(sftp, 0), (webdav, 1)])
def test_a_killed_copy_goes_on_and_ends_as_if_it_had_not_been(tmp_path: Path, serve: Serve, seed: int) -> None:
    """Killed while bytes flow, so that half a file lies under its name."""
    pick = random.Random(seed)
    files = {f"d/{n}.bin": pick.randbytes(400_000) for n in range(8)}
    with serve(tmp_path / "server") as base:
        site = Site(tmp_path, {"base": base, "secret": crypt("base:enc")})
        site.write(files)
        site.options = {"bandwidth": "2M", "transfers": 2}
        site.configure("secret:it")
        for _ in range(3):
            kill_while_bytes_flow(start(site), tmp_path / "server" / "store", secrets=[PASSWORD, base["pass"]])
        assert site.rclone("lsf", "secret:it").split() == ["files/"], "there is no list yet"
        site.options = {}
        site.configure("secret:it")
        assert site.copied()["problems"] == []
        assert site.objects("secret:it") == {name: len(content) for name, content in files.items()}
        assert "All agree: 8 objects" in site.run("verify", "it")
        site.run("fetch", "it", tmp_path / "back")
        assert tree(tmp_path / "back") == files


def test_rclone_left_at_work_by_a_killed_command_keeps_others_out(tmp_path: Path) -> None:
    with sftp(tmp_path / "server") as base:
        site = Site(tmp_path, {"base": base})
        site.write({"large": os.urandom(1_000_000)})
        site.options = {"bandwidth": "100k"}
        site.configure("base:it")
        running = start(site)
        copied = tmp_path / "server" / "store" / "it" / "files" / "large"
        until(copied.exists, "bytes flow")
        (left,) = children(running.pid)
        running.send_signal(signal.SIGKILL)
        running.wait()
        assert "another run works on the off-site copy it" in site.run("copy", code=3)
        os.kill(left, signal.SIGKILL)
        until(lambda: not is_running(left), "rclone is gone")
        site.options = {}
        site.configure("base:it")
        assert site.copied()["written"] == 1
        assert copied.read_bytes() == (site.source / "large").read_bytes()


def test_a_remote_that_does_not_answer_is_told_and_the_next_run_goes_on(tmp_path: Path) -> None:
    port = free_port()
    with webdav(tmp_path / "server", port) as base:
        site = Site(tmp_path, {"base": base})
    site.write(FILES)
    site.configure("base:it")
    said = site.run("copy", code=3)
    assert "rclone lsjson failed" in said
    assert "connection refused" in said
    with webdav(tmp_path / "server", port):
        assert site.copied()["written"] == len(FILES)


def test_old_lists_and_what_only_they_name_go_when_asked(local: Site, tmp_path: Path) -> None:
    local.configure("base:it", versions=True)
    for content in (b"one", b"two", b"three"):
        local.write({"kept": b"kept", "changed": content})
        local.copied()
    index = tmp_path / "store" / "it" / "index"
    names = sorted(path.name for path in index.iterdir())
    before = tree(tmp_path / "store")
    assert json.loads(local.run("prune", "it", "--keep-days", "1", "--json"))["indexes"] == []
    _age(index / names[0], index / names[1], index / names[2])
    aged = tree(tmp_path / "store")
    plan = json.loads(local.run("prune", "it", "--keep-days", "1", "--dry-run", "--json"))
    assert tree(tmp_path / "store") == aged
    assert (len(plan["indexes"]), plan["kept_indexes"]) == (2, 1)
    assert json.loads(local.run("prune", "it", "--keep-days", "1", "--json")) == plan
    assert sorted(content for name, content in tree(tmp_path / "store" / "it" / "files").items()) == [b"kept", b"three"]
    assert {k for k in before if "files" in k} - {k for k in tree(tmp_path / "store") if "files" in k} == {
        f"it/files/{name}" for name in plan["objects"]
    }
    assert "All agree: 2 objects" in local.run("verify", "it", "--all")
    local.write({"changed": b"two"})  # what was removed is not remembered as being there
    assert local.copied()["written"] == 1
    assert "All agree: 3 objects" in local.run("verify", "it", "--all")


def _age(*indexes: Path) -> None:
    """Lists of last year, as they would lie there now."""
    import gzip

    for path in indexes:
        old = path.name.replace("2026", "2020", 1)
        text = gzip.decompress(path.read_bytes()).replace(b'"taken_at":"2026', b'"taken_at":"2020')
        path.with_name(old).write_bytes(gzip.compress(text))
        path.unlink()


async def test_a_journals_open_segment_waits_until_it_is_closed(local: Site) -> None:
    journal = writer(local.source / "binance")
    await journal.open()
    journal.append(1_700_000_000_000_000_002, b"frame")
    await journal.commit()
    local.write({"other": b"1"})
    local.configure("base:it")
    assert local.copied()["written"] == 1
    await journal.close("shutdown")
    assert local.copied()["written"] == 1
    (segment,) = (local.source / "binance").iterdir()
    assert local.content("base:it", f"binance/{segment.name}") == segment.read_bytes()


def test_a_month_that_is_being_written_waits_and_the_older_list_still_has_it(local: Site, tmp_path: Path) -> None:
    local.write(FILES)
    local.configure("base:it", versions=True)
    local.copied()
    local.write({"2026-11/trades.csv.gz": b"newer", "2026-12/manifest.json": b"{}"})
    (local.source / "2026-11" / ".progress.json").touch()
    assert local.copied()["written"] == 1
    local.run("fetch", "it", tmp_path / "back", "--below", "2026-11")
    assert tree(tmp_path / "back") == {name: FILES[name] for name in FILES if name.startswith("2026-11/")}


def test_what_cannot_be_is_said_before_anything_is_done(local: Site, tmp_path: Path) -> None:
    local.write({"a": b"1"})
    for options, code, said in (
        ({"remote": "nowhere"}, 2, "`copies"),
        ({"remote": "base:it", "versoins": True}, 2, "unknown key `copies.it.versoins`"),
        ({"remote": "base:it", "source": str(tmp_path / "none")}, 3, "is no folder"),
        ({"remote": "unknown:it"}, 3, "didn't find section in config file"),
    ):
        local.configure(**({"remote": "base:it"} | options))
        assert said in local.run("copy", code=code)
    local.configure("base:it")
    assert "is no off-site copy of this host: it has it" in local.run("copy", "other", code=2)
    assert "nothing was copied there yet" in local.run("verify", "it", code=3)
    assert "no list on base:it has any file" in local.run("fetch", "it", tmp_path / "back", code=3)
    local.copied()
    (tmp_path / "back").mkdir()
    (tmp_path / "back" / "a").write_bytes(b"2")
    assert "is there with other content" in local.run("fetch", "it", tmp_path / "back", code=3)
    assert tree(tmp_path / "back") == {"a": b"2"}
    (local.source / "link").symlink_to("a")
    assert "is a symbolic link" in local.run("copy", code=3)
