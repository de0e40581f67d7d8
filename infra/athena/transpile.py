"""What `cargo xtask athena` needs to know of the SQL in this folder: whether it keeps to the rules, what columns the
views have, and the same in DuckDB's dialect.

Reads {"columns": [[name, Hive type], ...]} of the table `events` from the standard input, and prints one JSON object:
"views" (name, comment, sql, and columns as [name, Trino type]), "queries" (name, comment, sql) and "duckdb" (the text
of duckdb/views.sql).

The rules:

- `events` has one file for each tenant, day and batch, and Athena knows no tenant by itself (its partition is
  injected): a query that does not say which tenant is refused there. So a view is one SELECT on `events` that passes
  `tenant` and `dt` through as they are, groups by both, and has both in each window's partition, and a filter on a view
  reaches the files.
- Each other column of a view is a column of `events` or a CAST, so that its type can be read off.
- A saved query reads `events` or a view once, alone, WHERE tenant = ? AND dt BETWEEN ? AND ?. It has no parameters but
  these three.
"""

import json
import pathlib
import sys
import textwrap

import sqlglot
from sqlglot import exp

HERE = pathlib.Path(__file__).parent
TABLE = "events"
PARTITIONS = ("tenant", "dt")
# The parameters of a saved query in the order of its question marks; not the names of columns.
PARAMETERS = ("of_tenant", "first_day", "last_day")
# As Hive calls them and as Trino does; the others have one name.
TRINO = {"string": "varchar", "binary": "varbinary", "timestamp": "timestamp(3)"}


class Refused(Exception):
    """The SQL breaks a rule."""


def require(holds, why):
    if not holds:
        raise Refused(why)


def parse(sql):
    statements = sqlglot.parse(sql, read="athena")
    require(len(statements) == 1 and isinstance(statements[0], exp.Select), "not one SELECT")
    return statements[0]


def column_name(expression):
    """The name of a bare column; None of anything else."""
    return expression.name if isinstance(expression, exp.Column) and not expression.table else None


def require_partitions(expressions, where):
    names = {column_name(e) for e in expressions}
    require(names.issuperset(PARTITIONS), f"{where} without tenant and dt")


def view_columns(sql, table_columns):
    """The columns of a view as (name, Trino type), if it keeps to the rules."""
    select = parse(sql)
    require(len(list(select.find_all(exp.Select))) == 1, "a view is one SELECT")
    require([t.sql() for t in select.find_all(exp.Table)] == [TABLE], f"a view reads {TABLE}, once")
    require(not select.find(exp.Placeholder), "a view has no parameters")
    for name in ("limit", "offset", "distinct", "having", "order"):
        require(not select.args.get(name), f"a view has no {name.upper()}")
    if group := select.args.get("group"):
        require_partitions(group.expressions, "GROUP BY")
    else:
        require(not any(not e.find_ancestor(exp.Window) for e in select.find_all(exp.AggFunc)), "no GROUP BY")
    for window in select.find_all(exp.Window):
        require_partitions(window.args.get("partition_by") or [], "a window")
    columns = []
    for expression in select.expressions:
        if isinstance(expression, exp.Alias) and isinstance(expression.this, exp.Cast):
            kind = expression.this.to.sql(dialect="trino").lower()
        else:
            name = column_name(expression)
            require(name in table_columns, f"{expression.sql()} is no column of {TABLE} and no CAST")
            kind = TRINO.get(table_columns[name], table_columns[name])
        columns.append((expression.alias_or_name, kind.replace(", ", ",")))
    require_partitions(select.expressions, "SELECT")
    require(len({name for name, _ in columns}) == len(columns), "a column stands there twice")
    return columns


def conjuncts(condition):
    return condition.flatten() if isinstance(condition, exp.And) else [condition]


def check_query(sql, views):
    """Refuses a saved query that does not keep to the rules."""
    query = parse(sql)
    subqueries = {cte.alias for cte in query.find_all(exp.CTE)}
    require(not subqueries.intersection([TABLE, *views]), "a subquery hides a table")
    reads = [t for t in query.find_all(exp.Table) if t.name not in subqueries]
    require(len(reads) == 1, f"{len(reads)} tables, not one")
    require(reads[0].sql() in [TABLE, *views], f"{reads[0].sql()} is neither {TABLE} nor a view")
    select = reads[0].find_ancestor(exp.Select)
    require(isinstance(reads[0].parent, exp.From) and not select.args.get("joins"), "a join")
    where = select.args.get("where")
    found = [c.sql() for c in conjuncts(where.this)] if where else []
    for wanted in ("tenant = ?", "dt BETWEEN ? AND ?"):
        require(wanted in found, f"no {wanted}")
    require(found.index("tenant = ?") < found.index("dt BETWEEN ? AND ?"), "the days before the tenant")
    require(len(list(query.find_all(exp.Placeholder))) == len(PARAMETERS), "other parameters")


def to_duckdb(sql, values=None):
    """The same in DuckDB's dialect, with these expressions for its question marks."""
    values = iter(values) if values else None

    def change(node):
        if isinstance(node, exp.Placeholder) and values:
            return next(values).copy()
        # A number in another base: DuckDB knows hexadecimal ones as text.
        if isinstance(node, exp.FromBase):
            require(node.expression.name == "16", "from_base of another base than 16")
            return exp.cast(exp.DPipe(this=exp.Literal.string("0x"), expression=node.this), "bigint")
        return node

    # In the order of the text: the question marks have one.
    return parse(sql).transform(change).sql(dialect="duckdb", pretty=True, comments=False)


def files(folder):
    """Name, text and first paragraph of comment of each file."""
    found = []
    for file in sorted(folder.glob("*.sql")):
        comment = []
        for line in file.read_text().splitlines():
            if not line.startswith("-- "):
                break
            comment.append(line.removeprefix("-- ").strip())
        found.append({"name": file.stem, "comment": " ".join(comment), "sql": file.read_text().strip()})
    return found


def commented(text):
    return textwrap.wrap(text, 120, initial_indent="-- ", subsequent_indent="-- ")


def duckdb_script(table_columns, views, queries):
    # What Athena shows: times without a zone, in UTC, whatever the zone of the session.
    listed = [
        f"timezone('UTC', \"{name}\") AS \"{name}\"" if kind == "timestamp" else f'"{name}"'
        for name, kind in table_columns.items()
    ]
    listed.append('filename AS "$path"')
    out = [
        "-- Generated by `cargo xtask athena` from the SQL beside this folder.",
        "--",
        "-- The table, the views and the saved queries for DuckDB, on a directory that holds an archive:",
        "-- quipu-data/archive, unless the variable `archive` says otherwise. A saved query is a macro of tenant, first",
        "-- day and last day:",
        "--",
        "--   SELECT * FROM verify_chain('default', '2026-01-01', '2026-12-31');",
        "",
        "SET VARIABLE archive = coalesce(getvariable('archive'), 'quipu-data/archive');",
        "",
        f"CREATE OR REPLACE VIEW {TABLE} AS",
        "SELECT\n  " + ",\n  ".join(listed),
        "FROM read_parquet(",
        "  getvariable('archive') || '/events/*/*/*.parquet',",
        "  hive_partitioning = true, hive_types = {'tenant': VARCHAR, 'dt': VARCHAR}, filename = true",
        ");",
    ]
    for view in views:
        out += ["", *commented(view["comment"]), f"CREATE OR REPLACE VIEW {view['name']} AS", to_duckdb(view["sql"]) + ";"]
    for query in queries:
        sql = to_duckdb(query["sql"], [exp.column(name) for name in PARAMETERS])
        head = f"CREATE OR REPLACE MACRO {query['name']}({', '.join(PARAMETERS)}) AS TABLE"
        out += ["", *commented(query["comment"]), head, sql + ";"]
    return "\n".join(out) + "\n"


def main():
    given = json.load(sys.stdin)["columns"]
    table_columns = dict(given)
    views, queries = files(HERE / "views"), files(HERE)
    for sql, check in [(v, lambda v: v.update(columns=view_columns(v["sql"], table_columns))) for v in views] + [
        (q, lambda q: check_query(q["sql"], [v["name"] for v in views])) for q in queries
    ]:
        try:
            check(sql)
        except Refused as why:
            sys.exit(f"{sql['name']}.sql: {why}")
    json.dump({"views": views, "queries": queries, "duckdb": duckdb_script(table_columns, views, queries)}, sys.stdout)


if __name__ == "__main__":
    main()
