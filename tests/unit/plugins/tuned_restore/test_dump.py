"""What the reading of a dump tells; the lines are as the awk program of ``INSPECT`` prints them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from ansible_collections.cryptopip.marketdata.plugins.module_utils.tuned_restore.dump import (
    INSPECT,
    Contents,
    DumpError,
    check_contents_list,
    check_roles,
    check_versions,
    read_contents,
)

WHOLE = [
    "S\tCREATE EXTENSION IF NOT EXISTS timescaledb WITH SCHEMA public;",
    "S\tALTER TABLE public.ticks OWNER TO cryptopip_owner;",
    'S\tGRANT SELECT ON TABLE public.ticks TO "Reader One";',
    "S\tGRANT ALL ON SCHEMA public TO PUBLIC;",
    "S\tGRANT SELECT ON TABLE public.ticks TO auditor WITH GRANT OPTION;",
    "S\tALTER DEFAULT PRIVILEGES FOR ROLE maker IN SCHEMA public GRANT SELECT ON TABLES TO taker;",
    "C\tCOPY _timescaledb_catalog.metadata (key, value, include_in_telemetry) FROM stdin;",
    "M\tinstall_timestamp\t2026-11-25\tt",
    "M\ttimescaledb_version\t2.19.3\tf",
    "N\t2\t60",
    'C\tCOPY _timescaledb_internal._hyper_1_1_chunk ("time", a) FROM stdin;',
    "N\t24\t500",
    'C\tCOPY public."We (ird" (a) FROM stdin;',
    "N\t0\t0",
    "E",
]


def test_rows_roles_extensions_and_version_are_told() -> None:
    contents = read_contents("\n".join(WHOLE))
    assert contents == Contents(
        rows={
            "_timescaledb_catalog.metadata": 2,
            "_timescaledb_internal._hyper_1_1_chunk": 24,
            'public."We (ird"': 0,
        },
        copy_bytes=560,
        extensions={"timescaledb": "public"},
        roles=frozenset({"cryptopip_owner", "Reader One", "auditor", "maker", "taker"}),
        timescaledb="2.19.3",
    )
    assert contents.user_rows == 24


@pytest.mark.parametrize("cut", range(len(WHOLE)))
def test_a_dump_that_ends_early_is_truncated_wherever_it_ends(cut: int) -> None:
    with pytest.raises(DumpError, match="truncated"):
        read_contents("\n".join(WHOLE[:cut]))


def test_a_dump_with_inserts_and_one_without_the_catalog_are_refused() -> None:
    with pytest.raises(DumpError, match="INSERT"):
        read_contents("E\nI")
    with pytest.raises(DumpError, match="not its version"):
        read_contents("\n".join([WHOLE[0], "E"]))


@pytest.mark.parametrize("kind", ["FUNCTION", "TABLE DATA"])
def test_rows_as_inserts_are_told_from_bodies_of_functions(tmp_path: Path, kind: str) -> None:
    title = "Data for Name" if kind == "TABLE DATA" else "Name"
    dump = tmp_path / "dump.sql"
    dump.write_text(
        f"--\n-- {title}: a; Type: {kind}; Schema: public; Owner: x\n--\n\nINSERT INTO public.a VALUES (1);\n"
        "--\n-- Name: b; Type: TABLE; Schema: public; Owner: x\n--\n-- PostgreSQL database dump complete\n"
    )
    told = subprocess.run(
        ["bash", "-c", INSPECT, "inspect", str(dump), "plain", "none"], capture_output=True, text=True, check=True
    )
    assert told.stdout.split() == (["E", "I"] if kind == "TABLE DATA" else ["E"])


def test_a_dump_of_another_version_is_refused_with_both_versions_and_the_way_out() -> None:
    contents = read_contents("\n".join(WHOLE))
    check_versions(contents, {"timescaledb": frozenset({"2.19.3", "2.18.0"})})
    with pytest.raises(DumpError, match=r"under TimescaleDB 2\.19\.3, the server has 2\.29\.2.*ALTER EXTENSION"):
        check_versions(contents, {"timescaledb": frozenset({"2.29.2"})})
    with pytest.raises(DumpError, match="needs the extensions timescaledb"):
        check_versions(contents, {"plpgsql": frozenset({"1.0"})})


def test_missing_roles_are_named() -> None:
    contents = read_contents("\n".join(WHOLE))
    check_roles(contents, contents.roles)
    with pytest.raises(DumpError, match="Reader One, auditor"):
        check_roles(contents, contents.roles - {"Reader One", "auditor"})


def test_an_empty_contents_list_is_no_dump() -> None:
    assert check_contents_list("; Archive\n;     TOC Entries: 1\n;\n2; 3079 16385 EXTENSION - timescaledb \n") == 1
    for text in ("", ";     TOC Entries: 0\n"):
        with pytest.raises(DumpError):
            check_contents_list(text)
