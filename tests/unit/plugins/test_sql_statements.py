"""Cutting SQL into statements."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.cryptopip.marketdata.plugins.module_utils.sql_statements import Statement, split_statements
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[3]
WHOLE = [
    "SELECT 1",
    "SELECT ';'",
    "SELECT 'it''s; so'",
    r"SELECT E'\'; '",
    'SELECT ";" FROM ";"',
    "SELECT $$ ; $$",
    "DO $a$ BEGIN RAISE NOTICE $b$;$b$; END $a$",
    "SELECT 1 /* ; /* ; */ ; */ + 1",
    "SELECT 1 -- ; not here\n + 2",
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END",
    "CREATE FUNCTION f(begin_ int) RETURNS int LANGUAGE sql RETURN begin_",
    "SELECT a$b FROM c$d",
    "SELECT $1",
    "SELECT 'ä;ö'",
]


@pytest.mark.parametrize("statement", WHOLE)
def test_a_semicolon_inside_a_literal_comment_or_body_ends_nothing(statement: str) -> None:
    assert [s.text for s in split_statements(f"{statement};SELECT 7;")] == [statement, "SELECT 7"]


@given(st.lists(st.sampled_from(WHOLE), max_size=6), st.sampled_from([";", ";\n", " ; -- done\n", ";;\n\n/* x; */"]))
def test_statements_come_back_as_they_went_in(statements: list[str], between: str) -> None:
    assert [s.text for s in split_statements(between.join([*statements, ""]))] == statements


@given(st.text(alphabet="ab ;'\"$-/*\n\\eE1", max_size=60))
def test_whatever_the_text_no_statement_is_made_up_and_its_line_is_where_it_stands(text: str) -> None:
    position = 0
    for statement in split_statements(text):
        position = text.index(statement.text, position)
        assert text.count("\n", 0, position) + 1 == statement.line
        position += len(statement.text)


def test_a_statement_begins_where_its_first_word_is_not_at_the_comment_above() -> None:
    assert split_statements("-- a\n\nSELECT 1;\n/* b */ SELECT\n2;\n-- end\n") == [
        Statement("SELECT 1", 3),
        Statement("SELECT\n2", 4),
    ]


def test_nothing_but_comments_holds_no_statement() -> None:
    assert split_statements("-- SELECT 1;\n/* SELECT 2; */ ;;") == []


@pytest.mark.parametrize(
    "file", sorted((ROOT / "files" / "sql").glob("*/*.sql")), ids=lambda f: f"{f.parent.name}/{f.name}"
)
def test_the_statements_of_every_migration_hold_all_of_its_code(file: Path) -> None:
    text = file.read_text()
    assert _bare("\n".join(s.text for s in split_statements(text))) == _bare(text)


def _bare(text: str) -> str:
    return "".join(line.split("--")[0] for line in text.splitlines()).translate(str.maketrans("", "", "; \n"))
