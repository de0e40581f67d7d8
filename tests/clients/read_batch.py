"""Reads a batch with pyarrow and with DuckDB, and prints what each found, one JSON object a line.

    read_batch.py FILE [EVENT_ID...]

Every line is {"reader": ..., "row": {...}}: bytes in hex, times as microseconds since 1970, decimals as text, doubles
as Python's repr. Then a line {"reader": ..., "count": n} from each, counted by the reader itself, and for each event
id a line with the number of rows that DuckDB finds by it.
"""

import decimal
import json
import sys

import duckdb
import pyarrow
import pyarrow.parquet

# What stands in the file, and nothing that stands in its path.
BATCH = "read_parquet(?, hive_partitioning = false)"


def plain(value):
    """A value as JSON that loses nothing."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).hex()
    if isinstance(value, decimal.Decimal):
        return f"{value:f}"
    if isinstance(value, float):
        return repr(value)
    return value


def dump(reader, row):
    print(json.dumps({"reader": reader, "row": {name: plain(value) for name, value in row.items()}}))


def main(path):
    file = pyarrow.parquet.ParquetFile(path)
    for batch in file.iter_batches():
        for index, field in enumerate(batch.schema):
            if pyarrow.types.is_timestamp(field.type):
                assert field.type == pyarrow.timestamp("us", "UTC"), field
                numbers = batch.column(index).cast(pyarrow.int64())
                batch = batch.set_column(index, field.name, numbers)
        for row in batch.to_pylist():
            dump("pyarrow", row)
    print(json.dumps({"reader": "pyarrow", "count": file.metadata.num_rows}))

    database = duckdb.connect()
    # DuckDB gives times with a zone as local ones unless told otherwise.
    database.execute("SET TimeZone = 'UTC'")
    columns = [row[0] for row in database.execute(f"DESCRIBE SELECT * FROM {BATCH}", [path]).fetchall()]
    times = {"timestamp", "received_at"}
    wanted = ", ".join(f"epoch_us({c}) AS {c}" if c in times else c for c in columns)
    # In the order of the file: DuckDB keeps it (preserve_insertion_order).
    found = database.execute(f"SELECT {wanted} FROM {BATCH}", [path])
    while rows := found.fetchmany(1000):
        for row in rows:
            dump("duckdb", dict(zip(columns, row)))
    count = database.execute(f"SELECT count(*) FROM {BATCH}", [path]).fetchone()[0]
    print(json.dumps({"reader": "duckdb", "count": count}))
    # What its row groups and bloom filters say must lead to the row.
    for wanted in sys.argv[2:]:
        query = f"SELECT count(*) FROM {BATCH} WHERE event_id = ?"
        count = database.execute(query, [path, wanted]).fetchone()[0]
        print(json.dumps({"reader": "duckdb", "event_id": wanted, "count": count}))


if __name__ == "__main__":
    main(sys.argv[1])
