"""Rewrites batches with one thing changed in each, as somebody would who may write to the bucket.

Reads a JSON list from the standard input: of "file" and what is changed there. "session_id" and "sequence" name the row; "set" gives columns new values (bytes in hex),
"rehash" makes its hash right again for what it then says, "erase" takes the content out and leaves its digest, as an
erasure does; "drop" takes the row out, "repeat" puts it there twice. Everything else is as it was.
"""

import hashlib
import json
import sys

import pyarrow
import pyarrow.parquet

# docs/format.md, section 3.
LINES = ["session_id", "sequence", "event_id", "timestamp_us", "received_at_us", "agent_id", "event_type", "severity"]


def sha256(data):
    return hashlib.sha256(data).digest()


def content_digest(row):
    content = row["payload"].encode() + b"\n" + row["metadata"].encode()
    return row["content_digest"] or sha256(b"quipu.content.v1\n" + row["salt"] + content)


def event_hash(tenant, prev, row):
    lines = ["quipu.event.v1", prev.hex(), tenant, *(str(row[name]) for name in LINES), row["source_id"] or ""]
    lines += [row["compliance_tag"], row["pii_types"], str(row["redaction_count"])]
    lines += [(row["redaction_policy"] or b"").hex(), content_digest(row).hex()]
    return sha256("\n".join(lines).encode())


def tamper(path, change):
    file = pyarrow.parquet.ParquetFile(path)
    rows, schema = file.read().to_pylist(), file.schema_arrow
    key = (change["session_id"], change["sequence"])
    (place,) = [i for i, row in enumerate(rows) if (row["session_id"], row["sequence"]) == key]
    row = rows[place]
    # What is recomputed here is what was written: or nothing that follows would mean anything.
    before = [r for r in rows[:place] if r["session_id"] == row["session_id"]]
    prev = row["prev_hash"] or before[-1]["hash"]
    tenant = path.split("/tenant=")[1].split("/")[0]
    assert event_hash(tenant, prev, row) == row["hash"]
    for name, value in change.get("set", {}).items():
        binary = value is not None and pyarrow.types.is_binary(schema.field(name).type)
        row[name] = bytes.fromhex(value) if binary else value
    if change.get("erase"):
        row["content_digest"] = content_digest(row)
        row.update(payload=None, metadata=None, salt=None)
    if change.get("rehash"):
        row["hash"] = event_hash(tenant, prev, row)
    if change.get("drop"):
        del rows[place]
    if change.get("repeat"):
        rows.insert(place, dict(row))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema=schema), path)


if __name__ == "__main__":
    for change in json.load(sys.stdin):
        tamper(change["file"], change)
