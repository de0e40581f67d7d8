"""The SQL of infra/athena, as it is asked without AWS.

    sql.py duckdb    asks DuckDB, with infra/athena/duckdb/views.sql before it, on the archive that each query names
    sql.py athena    prints each query as an Athena that is DuckDB takes it: the views written out
    sql.py rules     prints of each text why it is refused; null if it is not
    sql.py grammar   prints of each text where it leaves the grammar of Trino, which Athena is; null if it does not

Reads a JSON list from the standard input and prints one, in the same order. A query is {"sql": in Athena's dialect, or
"macro": a saved query's name, "describe": a table's or view's; "values": those of its three question marks; "archive": its directory}; a text for `rules` is {"kind": "view" or
"query", "sql": ...}, for `grammar` it is text. An answer is a list of rows, each an object of text or null, as Athena's API gives it.
"""

import json
import pathlib
import sys

import duckdb
import trino_query_parser
from sqlglot import exp

ATHENA = pathlib.Path(__file__).parents[2] / "infra/athena"
sys.path.insert(0, str(ATHENA))
import transpile  # noqa: E402

VIEWS = {view["name"]: view["sql"] for view in transpile.files(ATHENA / "views")}
QUERIES = {query["name"]: query["sql"] for query in transpile.files(ATHENA)}


def literals(values):
    return [exp.Literal.string(value) for value in values]


def text(value):
    if value is None:
        return None
    return str(value).lower() if isinstance(value, bool) else str(value)


def ask_duckdb(queries):
    database = duckdb.connect()
    # Not the zone of the times: what is shown must not depend on it.
    database.execute("SET TimeZone = 'Pacific/Kiritimati'")
    for index, query in enumerate(queries):
        database.execute("SET VARIABLE archive = $archive", {"archive": query["archive"]})
        if index == 0:
            database.execute((ATHENA / "duckdb/views.sql").read_text())
        if "describe" in query:
            found = database.execute(f"DESCRIBE {query['describe']}")
        elif "macro" in query:
            found = database.execute(f"SELECT * FROM {query['macro']}(?, ?, ?)", query["values"])
        else:
            found = database.execute(transpile.to_duckdb(query["sql"], literals(query["values"])))
        names = [column[0] for column in found.description]
        yield [dict(zip(names, map(text, row))) for row in found.fetchall()]


# The table as Athena itself shows it: times without a zone, and each row's file.
SHOWN = """(SELECT * REPLACE (timezone('UTC', "timestamp") AS "timestamp", timezone('UTC', received_at) AS received_at),
filename AS "$path" FROM events) AS events"""


def for_athena(query):
    sql = QUERIES[query["macro"]] if "macro" in query else query["sql"]
    # A query reads one of them, once; so does a view.
    (read,) = {t.name for t in transpile.parse(sql).find_all(exp.Table)}.intersection([transpile.TABLE, *VIEWS])
    asked = transpile.to_duckdb(sql, literals(query["values"]))
    if read in VIEWS:
        asked = asked.replace(f"FROM {read}", f"FROM ({transpile.to_duckdb(VIEWS[read])}) AS {read}")
    return asked.replace(f"FROM {transpile.TABLE}", f"FROM {SHOWN}")


def refused(given):
    columns = dict.fromkeys(
        ["tenant", "dt", "session_id", "sequence", "event_id", "payload", "cost_usd", "duration_ms"], "string"
    )
    try:
        if given["kind"] == "view":
            transpile.view_columns(given["sql"], columns)
        else:
            transpile.check_query(given["sql"], list(VIEWS))
    except transpile.Refused as why:
        return str(why)
    return None


def ungrammatical(sql):
    try:
        trino_query_parser.parse_statement(sql)
    except trino_query_parser.TrinoSyntaxError as why:
        return str(why)
    return None


def main():
    given = json.load(sys.stdin)
    if sys.argv[1:] == ["duckdb"]:
        answers = list(ask_duckdb(given))
    elif sys.argv[1:] == ["athena"]:
        answers = [for_athena(query) for query in given]
    elif sys.argv[1:] == ["rules"]:
        answers = [refused(sql) for sql in given]
    elif sys.argv[1:] == ["grammar"]:
        answers = [ungrammatical(sql) for sql in given]
    else:
        sys.exit(__doc__)
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
