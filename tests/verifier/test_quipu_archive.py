"""Tests of the second verifier on archives; needs pyarrow, as the verifier itself does for them."""

import base64
import builtins
import contextlib
import copy
import datetime
import functools
import hashlib
import io
import json
import math
import os
import random
import shutil
import struct
import sys
import tempfile
import unittest
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import quipu_verify as q  # noqa: E402
import test_quipu_verify as bundles  # noqa: E402
from test_quipu_verify import (  # noqa: E402
    DEPLOYMENT, LOG, OLD, OLDER, RECEIPT, TIME, checkpoint, mth, note, renamed, rotation, sha, signature,
)  # fmt: skip


def setUpModule():
    """The same notes are opened again and again; a signature is worked out once."""
    real = q.verify_signature
    q.verify_signature = functools.lru_cache(None)(real)
    unittest.addModuleCleanup(setattr, q, "verify_signature", real)


HOUR = 3600 * 10**6
COMMIT = 0x019C3C1E << 96 | 0x7000 << 64 | 0x8000 << 48  # 2026-02-08
DAY = "2026-02-08"


def iso(time):
    moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(microseconds=time)
    return moment.isoformat(timespec="microseconds") + "Z"


def tile_files(entries):
    """Every tile and bundle of a tree, by the definition of tlog-tiles."""
    files = {}
    for at in range(0, len(entries), 256):
        some = entries[at : at + 256]
        files["tile/entries/" + name(at // 256, len(some))] = b"".join(struct.pack(">H", 32) + e for e in some)
    level, span = 0, 1
    while len(entries) // span:
        hashes = [mth(entries[at : at + span]) for at in range(0, len(entries) // span * span, span)]
        for at in range(0, len(hashes), 256):
            some = hashes[at : at + 256]
            files[f"tile/{level}/" + name(at // 256, len(some))] = b"".join(some)
        level, span = level + 1, span * 256
    return files


def name(index, width):
    digits = f"{index:03}"
    digits = "0" * (-len(digits) % 3) + digits
    groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    return "/".join(["x" + group for group in groups[:-1]] + groups[-1:]) + ("" if width == 256 else f".p/{width}")


def bloom(values):
    values = set(values)
    bits = 8 * max(8, math.ceil(10 * len(values) / 8))
    number = 0
    for value in values:
        for word in struct.unpack(">7I", hashlib.sha256(value.encode()).digest()[:28]):
            number |= 1 << word % bits
    return base64.b64encode(number.to_bytes(bits // 8, "little")).decode()


# ----------------------------------------------------------------- events

DERIVED = [
    ("tool_name", pa.string()), ("call_id", pa.string()), ("provider", pa.string()), ("model", pa.string()),
    ("input_tokens", pa.int64()), ("output_tokens", pa.int64()), ("total_tokens", pa.int64()),
    ("cost_usd", pa.decimal128(38, 12)), ("duration_ms", pa.float64()), ("success", pa.bool_()),
    ("trace_id", pa.string()), ("span_id", pa.string()),
]  # fmt: skip
MOMENT = pa.timestamp("us", "UTC")
SCHEMA = pa.schema(
    [
        pa.field("session_id", pa.string(), False),
        pa.field("sequence", pa.int64(), False),
        pa.field("event_id", pa.string(), False),
        pa.field("commit_id", pa.string(), False),
        pa.field("timestamp", MOMENT, False),
        pa.field("timestamp_us", pa.int64(), False),
        pa.field("received_at", MOMENT, False),
        pa.field("received_at_us", pa.int64(), False),
        pa.field("agent_id", pa.string(), False),
        pa.field("event_type", pa.string(), False),
        pa.field("severity", pa.string(), False),
        pa.field("source_id", pa.string()),
        pa.field("compliance_tag", pa.string(), False),
        pa.field("pii_types", pa.string(), False),
        pa.field("redaction_count", pa.int64(), False),
        pa.field("redaction_policy", pa.binary()),
        pa.field("payload", pa.string()),
        pa.field("metadata", pa.string()),
        pa.field("salt", pa.binary()),
        pa.field("content_digest", pa.binary()),
        pa.field("prev_hash", pa.binary()),
        pa.field("hash", pa.binary(), False),
        *(pa.field(*column) for column in DERIVED),
    ]
)
NOTHING = dict.fromkeys(column for column, _ in DERIVED)
# What events look like by turns: changes to a plain one, and its derived columns.
KINDS = (
    ({}, {}),
    (
        {
            "event_type": "tool_call",
            "payload": '{"toolName":"se\\u0061rch","callId":"c1","costUsd":0.25,"usage":{"inputTokens":7}}',
            "metadata": '{"traceId":"t"}',
            "agent_id": "agent \u00fc",
            "source_id": "source",
            "pii_types": "email,name_2",
            "redaction_count": 3,
            "redaction_policy": b"\xab" * 32,
        },
        {
            "tool_name": "search",
            "call_id": "c1",
            "cost_usd": Decimal("0.25"),
            "input_tokens": 7,
            "trace_id": "t",
        },
    ),
    ({"metadata": '{"k":null}'}, {}),
    ({"event_type": "tool_response", "payload": "[1]"}, {"success": True}),
)


ERASED = ({"salt": None, "payload": None, "metadata": None, "content_digest": b"\xcd" * 32}, {})


@contextlib.contextmanager
def one_erased():
    """The third of KINDS is erased meanwhile."""
    global KINDS
    before = KINDS
    KINDS = (*KINDS[:2], ERASED, *KINDS[3:])
    try:
        yield
    finally:
        KINDS = before


def hash_row(row, tenant):
    digest = row["content_digest"]
    if digest is None:
        content = b"quipu.content.v1\n" + row["salt"] + row["payload"].encode() + b"\n"
        digest = sha(content, row["metadata"].encode())
    text = "\n".join(
        [
            "quipu.event.v1", row["prev_hash"].hex(), tenant, row["session_id"], str(row["sequence"]),
            row["event_id"], str(row["timestamp_us"]), str(row["received_at_us"]), row["agent_id"],
            row["event_type"], row["severity"], row["source_id"] or "", row["compliance_tag"], row["pii_types"],
            str(row["redaction_count"]), (row["redaction_policy"] or b"").hex(), digest.hex(),
        ]
    )  # fmt: skip
    return sha(text.encode())


class World:
    """Makes archives. Each step may be edited by a hook before the next builds on it."""

    def __init__(self, root):
        self.root = root
        self.number = 0  # of the next event
        self.chains = {}  # (tenant, session) -> sequence and hash to go on from
        self.entries = {}  # tenant -> hashes of its leaves
        self.batches = {}  # tenant -> number and hash of the last header
        self.last = {}  # tenant -> last header
        self.events = {}  # (tenant, session, sequence) -> hash

    def put(self, key, data):
        file = os.path.join(self.root, key)
        os.makedirs(os.path.dirname(file), exist_ok=True)
        with open(file, "wb") as out:
            out.write(data if isinstance(data, bytes) else data.encode())

    def identity(self, log=LOG, rotations=(), edit=None, signer=None):
        record = {
            "format": "quipu.identity.v1",
            "deployment": DEPLOYMENT,
            "log_key": log.vkey,
            "certificates": [bundles.certificate(signer or log)],
            "rotations": list(rotations),
        }
        if edit:
            edit(record)
        self.put("log/_identity.json", json.dumps(record))

    def rows(self, tenant, runs, edit=None):
        rows = []
        for session, count in runs:
            for at in range(count):
                sequence, previous = self.chains.get((tenant, session), (0, bytes(32)))
                changes, derived = KINDS[self.number % len(KINDS)]
                commit = COMMIT + ((len(rows) // 3) << 10)
                number = COMMIT + (len(rows) // 3 << 10) + len(rows) % 3 + 1
                hexes = [f"{value:032x}" for value in (number, commit)]
                event_id, commit_id = ("-".join([h[:8], h[8:12], h[12:16], h[16:20], h[20:]]) for h in hexes)
                row = {
                    "session_id": session,
                    "sequence": sequence,
                    "event_id": event_id,
                    "commit_id": commit_id,
                    "timestamp": TIME + self.number * 7 % 11,
                    "received_at": TIME + self.number,
                    "agent_id": f"agent/{self.number % 3}",
                    "event_type": "custom.event",
                    "severity": "info",
                    "source_id": None,
                    "compliance_tag": "default",
                    "pii_types": "",
                    "redaction_count": 0,
                    "redaction_policy": None,
                    "payload": '{"n":1.0}',
                    "metadata": "{}",
                    "salt": self.number.to_bytes(16),
                    "content_digest": None,
                    "prev_hash": previous,
                    **NOTHING,
                    **changes,
                    **derived,
                }
                row["timestamp_us"], row["received_at_us"] = row["timestamp"], row["received_at"]
                if edit:
                    edit(len(rows), row)
                row["hash"] = hash_row(row, tenant)
                self.chains[tenant, session] = sequence + 1, row["hash"]
                self.events[tenant, session, sequence] = row["hash"]
                if at:
                    row["prev_hash"] = None
                self.number += 1
                rows.append(row)
        return rows

    def batch(
        self, tenant, *runs, row=None, rows=None, table=None, data=None, header=None, text=None, signer=LOG,
        sign=None, check=None, steps=("sig", "object", "tiles", "checkpoint", "newest"), claimed_at=None,
    ):  # fmt: skip
        """Adds a batch of runs (session, count). The hooks: `row` edits a row before it is hashed, `rows` the
        finished rows, `table` the Parquet table, `data` its bytes, `header` and `text` the header."""
        made = self.rows(tenant, runs, row)
        described = copy.deepcopy(made)
        if rows:
            changed = rows(made)
            made = made if changed is None else changed
        columns = pa.Table.from_pylist([{n: r[n] for n in SCHEMA.names} for r in made], schema=SCHEMA)
        if table:
            columns = table(columns)
        out = io.BytesIO()
        pq.write_table(columns, out, row_group_size=4)
        parquet = data(out.getvalue()) if data else out.getvalue()

        number, prev = self.batches.get(tenant, (0, "0" * 64))
        number += 1
        entries = self.entries.setdefault(tenant, [])
        first_leaf = len(entries)
        entries += [r["hash"] for r in made]
        key = f"events/tenant={tenant}/dt={DAY}/batch-{number:020}.parquet"
        ends = {r["session_id"]: r for r in described}
        firsts = {r["session_id"]: r["sequence"] for r in reversed(described)}
        record = {
            "format": "quipu.batch.v1",
            "deployment": DEPLOYMENT,
            "tenant": tenant,
            "batch": number,
            "prev": prev,
            "first_leaf": first_leaf,
            "count": len(described),
            "tree_size": len(entries),
            "root": mth(entries).hex(),
            "claimed_at": iso(TIME + number * HOUR if claimed_at is None else claimed_at),
            "commit_first": min(r["commit_id"] for r in described),
            "commit_last": max(r["commit_id"] for r in described),
            "time_min": iso(min(r["timestamp_us"] for r in described)),
            "time_max": iso(max(r["timestamp_us"] for r in described)),
            "key": key,
            "bytes": len(parquet),
            "sha256": hashlib.sha256(parquet).hexdigest(),
            "staging": "staging/x",
            "schema": 1,
            "runs": [
                {"session_id": s, "first": firsts[s], "last": ends[s]["sequence"], "hash": ends[s]["hash"].hex()}
                for s in dict.fromkeys(s for s, _ in runs)
            ],
            "blooms": {
                "sessions": bloom(r["session_id"] for r in described),
                "agents": bloom(r["agent_id"] for r in described),
                "types": bloom(r["event_type"] for r in described),
            },
        }
        if header:
            header(record)
        encoded = json.dumps(record, indent=number % 2 or None)
        encoded = (text(encoded) if text else encoded).encode()
        place = f"log/{tenant}/batch/{number:020}"
        self.put(f"{place}.json", encoded)
        digest = hashlib.sha256(encoded).hexdigest()
        if "object" in steps:
            self.put(key, parquet)
        if "sig" in steps:
            lines = ["quipu.header.v1", DEPLOYMENT, tenant, str(number), digest]
            if sign:
                sign(lines)
            self.put(f"{place}.sig", note("\n".join(lines) + "\n", signer))
        if "tiles" in steps:
            for file, content in tile_files(entries).items():
                self.put(f"log/{tenant}/{file}", content)
        if "checkpoint" in steps:
            said = (check or checkpoint)(tenant, len(entries), mth(entries), signer)
            self.put(f"log/{tenant}/checkpoints/{number:020}", said)
            if "newest" in steps:
                self.put(f"log/{tenant}/checkpoint", said)
        self.batches[tenant] = number, digest
        self.last[tenant] = record
        return self


def standard(root):
    """Two tenants, three batches and one; sessions that go on, begin and rest."""
    world = World(root)
    world.identity()
    world.batch("acme", ("run 1", 3), ("lauf \u00fc", 2))
    world.batch("zeta-2", ("run 1", 7))
    world.batch("acme", ("run 3", 1), ("run 1", 2))
    world.batch("acme", ("lauf \u00fc", 4), ("run 1", 1))
    return world


class Case(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.base = os.path.join(cls.folder.name, "base")
        cls.standard = standard(cls.base)
        cls.made = 0

    def new(self):
        """The place of an archive to come."""
        type(self).made += 1
        root = os.path.join(self.folder.name, str(self.made))
        os.mkdir(root)
        self.addCleanup(shutil.rmtree, root)
        return root

    def copy(self):
        root = self.new()
        shutil.copytree(self.base, root, dirs_exist_ok=True)
        world = World(root)
        for name in ("number", "chains", "entries", "batches", "last", "events"):
            setattr(world, name, copy.deepcopy(getattr(self.standard, name)))
        return world

    def file(self, content):
        type(self).made += 1
        file = os.path.join(self.folder.name, f"file{self.made}")
        with open(file, "wb") as out:
            out.write(content if isinstance(content, bytes) else content.encode())
        return file

    def expect(self, verdict, code, world, key=LOG, receipts=(), kept=(), **place):
        result = q.verify_archive(
            world.root if isinstance(world, World) else world,
            self.file(key.vkey) if key else None,
            [self.file(r if isinstance(r, str) else json.dumps(r)) for r in receipts],
            [self.file(c) for c in kept],
        )
        self.assertEqual((result["verdict"], result["code"]), (verdict, code), result)
        for name, value in place.items():
            self.assertEqual(result[name], value, (name, result))
        self.assertTrue(q.describe_archive(result).startswith(verdict))
        return result

    def valid(self, world, **other):
        return self.expect("VALID", None, world, **other)

    def invalid(self, code, world, **other):
        return self.expect("INVALID", code, world, **other)

    def incomplete(self, code, world, **other):
        return self.expect("INCOMPLETE", code, world, **other)


H = f"log/acme/batch/{{:020}}.json".format
S = f"log/acme/batch/{{:020}}.sig".format
C = f"log/acme/checkpoints/{{:020}}".format
O = f"events/tenant=acme/dt={DAY}/batch-{{:020}}.parquet".format


def read(world, key):
    with open(os.path.join(world.root, key), "rb") as file:
        return file.read()


def remove(world, key):
    os.remove(os.path.join(world.root, key))


class Whole(Case):
    def test_valid(self):
        result = self.valid(self.base, tenant=None, batch=None)
        self.assertEqual((result["sessions"], result["events"]), (4, 20))
        entries = self.standard.entries
        self.assertEqual(
            result["logs"],
            [{"tenant": t, "tree_size": len(entries[t]), "root": mth(entries[t]).hex()} for t in ("acme", "zeta-2")],
        )

    def test_no_key(self):
        self.incomplete("no_key", self.base, key=None)

    def test_command_line(self):
        key, kept = self.file(LOG.vkey), self.file(read(self.standard, C(2)))
        receipt = self.file(json.dumps(bundles.receipt("run 1", self.said("run 1", 4))))
        arguments = [self.base, "--key", key, "--checkpoint", kept, "--receipt", receipt]
        for more, status, start in (([], 0, "VALID 4 sessions, 20 events\nacme: tree size 13"), (["--json"], 0, "{")):
            with contextlib.redirect_stdout(io.StringIO()) as out:
                self.assertEqual(q.main([*arguments, *more]), status)
            self.assertTrue(out.getvalue().startswith(start), out.getvalue())
        self.assertEqual(
            list(json.loads(out.getvalue())),
            ["verdict", "code", "tenant", "batch", "session_id", "sequence", "message", "sessions", "events", "logs"],
        )
        world = self.copy()
        world.put(O(2), b"x")
        with contextlib.redirect_stdout(io.StringIO()) as out:
            self.assertEqual(q.main([world.root, "--key", key]), 1)
        self.assertTrue(out.getvalue().startswith('INVALID object at tenant "acme", batch 2: '), out.getvalue())
        with contextlib.redirect_stdout(io.StringIO()):
            self.assertEqual(q.main([self.base]), 2)

    def said(self, session, sequence, tenant="acme"):
        return {"sequence": sequence, "hash": self.standard.events[tenant, session, sequence].hex()}

    def test_without_pyarrow(self):
        real = builtins.__import__

        def importing(name, *rest):
            if name.startswith("pyarrow"):
                raise ImportError(name)
            return real(name, *rest)

        builtins.__import__ = importing
        try:
            result = self.incomplete("unreadable", self.base)
            self.assertIn("pyarrow", result["message"])
            world = self.copy()
            remove(world, S(1))
            self.invalid("signature", world)
        finally:
            builtins.__import__ = real

    def test_unreadable(self):
        self.incomplete("unreadable", self.base, key=bundles.Signer("a b", "x"))
        world = self.copy()
        remove(world, O(1))
        self.invalid("object", world, key=bundles.Signer("a b", "x"))
        result = q.verify_archive(self.base, self.file(LOG.vkey), [], [os.path.join(self.folder.name, "none")])
        self.assertEqual((result["verdict"], result["code"]), ("INCOMPLETE", "unreadable"))

    def test_empty(self):
        world = World(self.new())
        world.identity()
        self.incomplete("empty", world)
        self.incomplete("no_key", world, key=None)
        os.mkdir(os.path.join(world.root, "events"))
        os.makedirs(os.path.join(world.root, "log", "acme", "batch"))
        self.incomplete("empty", world)
        self.invalid("rollback", world, kept=[checkpoint("acme", 0, mth([]))])
        world.put("events/stray", "")
        self.invalid("object", world)

    def test_every_object_removed(self):
        """Nothing of a finished archive can be missing."""
        seen = set()
        for folder, _, names in os.walk(self.base):
            for file in names:
                key = os.path.relpath(os.path.join(folder, file), self.base)
                world = self.copy()
                remove(world, key)
                result = q.verify_archive(world.root, self.file(LOG.vkey))
                seen.add(key)
                if key.endswith("/checkpoint") and "zeta" in key:
                    expected = ("INCOMPLETE", "unfinished")  # as if before the first checkpoint
                elif ".p/" in key and ".p/13" not in key and ".p/7" not in key:
                    expected = ("VALID", None)  # of a smaller tree; no one needs it
                elif ".json" in key:
                    expected = ("INVALID", "key" if "_identity" in key else "object")
                else:
                    code = "object" if key.startswith("events") else "tile" if "/tile/" in key else "checkpoint"
                    expected = ("INVALID", "signature" if key.endswith(".sig") else code)
                self.assertEqual((result["verdict"], result["code"]), expected, key)
        self.assertGreater(len(seen), 25)

    def test_every_object_flipped(self):
        source = random.Random(3)
        for folder, _, names in os.walk(self.base):
            for file in names:
                key = os.path.relpath(os.path.join(folder, file), self.base)
                data = read(self.standard, key)
                for _ in range(4):
                    at = source.randrange(len(data))
                    world = self.copy()
                    world.put(key, data[:at] + bytes([data[at] ^ 1 << source.randrange(7)]) + data[at + 1 :])
                    result = q.verify_archive(world.root, self.file(LOG.vkey))
                    if "_identity" in key:
                        continue  # times and names in it may differ; what matters is signed
                    self.assertEqual(result["verdict"], "INVALID", (key, at, result))
                for cut in (data[:-1], data + b"\n", b""):
                    world = self.copy()
                    world.put(key, cut)
                    result = q.verify_archive(world.root, self.file(LOG.vkey))
                    self.assertTrue(result["verdict"] == "INVALID" or "_identity" in key, (key, result))


class Identity(Case):
    def changed(self, **changes):
        world = self.copy()
        world.identity(edit=lambda record: record.update(changes))
        return world

    def test_bad(self):
        good = bundles.certificate()
        for changes in (
            {"format": "quipu.identity.v2"}, {"deployment": "other"}, {"deployment": None}, {"more": 1},
            {"log_key": bundles.OTHER_LOG.vkey}, {"log_key": LOG.vkey[:-1]}, {"log_key": None},
            {"log_key": renamed(LOG, "other/_log").vkey}, {"certificates": [bundles.certificate(OLD)]},
            {"certificates": [good, "x"]}, {"certificates": good}, {"certificates": [1]}, {"rotations": None},
            {"rotations": ["x"]}, {"rotations": [good]}, {"rotations": [rotation(LOG, OLD)]},
        ):  # fmt: skip
            with self.subTest(changes=changes):
                self.invalid("key", self.changed(**changes), tenant=None)
        self.invalid("key", self.base, key=OLD)
        world = self.copy()
        for text in ("", "[]", "{}", "{", "\ufeff{}", read(world, "log/_identity.json").decode()[:-1] + ',"format":"x"}'):
            world.put("log/_identity.json", text)
            self.invalid("key", world)
        self.valid(self.changed(certificates=[good, good]))

    def test_object_without_a_header(self):
        for key, place in (
            ("events/a", (None, None)), (O(4), ("acme", 4)), (O(0), ("acme", 0)), (O(1) + ".tmp", (None, None)),
            (O(1).replace("02-08", "02-09"), ("acme", 1)), (O(1).replace("acme", "other"), ("other", 1)),
            ("events/tenant=acme/x.parquet", (None, None)), (O(1).replace("acme", "Acme"), (None, None)),
        ):  # fmt: skip
            world = self.copy()
            world.put(key, read(world, O(1)))
            self.invalid("object", world, tenant=place[0], batch=place[1])


class Rotations(Case):
    def rotated(self, *rotations, keys=(OLD, LOG, LOG), **other):
        world = World(self.new())
        world.identity(rotations=rotations, **other)
        for signer, runs in zip(keys, ([("a", 2)], [("a", 1)], [("b", 3)])):
            world.batch("acme", *runs, signer=signer)
        return world

    def test_rotations(self):
        at2, at3 = rotation(OLD, LOG, "acme 2"), rotation(OLD, LOG, "acme 3")
        for key in (OLD, LOG):
            self.valid(self.rotated(at2), key=key)
            self.valid(self.rotated(rotation(OLD, LOG, "aa 9", "acme 2", "b 1")), key=key)
        self.valid(self.rotated(at2, signer=OLD))
        self.invalid("key", self.rotated(at2, signer=OLDER))
        self.invalid("key", self.rotated(at2), key=OLDER)
        self.valid(self.rotated(at3, keys=(OLD, OLD, LOG)))
        self.invalid("signature", self.rotated(at3), batch=2)
        self.invalid("signature", self.rotated(at2, keys=(OLD, OLD, LOG)), batch=2)
        self.invalid("signature", self.rotated(at2, keys=(LOG, LOG, LOG)), batch=1)
        # A tenant that is not named had no log at the rotation.
        self.valid(self.rotated(rotation(OLD, LOG), keys=(LOG, LOG, LOG)))
        self.invalid("signature", self.rotated(rotation(OLD, LOG)), batch=1)

    def test_two_rotations(self):
        first, second = rotation(OLDER, OLD, "acme 2"), rotation(OLD, LOG, "acme 3")
        for key in (OLDER, OLD, LOG):
            self.valid(self.rotated(first, second, keys=(OLDER, OLD, LOG)), key=key)
        self.valid(self.rotated(first, rotation(OLD, LOG, "acme 2"), keys=(OLDER, LOG, LOG)))
        self.invalid("key", self.rotated(second, first, keys=(OLDER, OLD, LOG)))
        self.invalid("key", self.rotated(second, keys=(OLDER, OLD, LOG)), key=OLDER)
        self.invalid("key", self.rotated(first, keys=(OLDER, OLD, LOG)))
        self.invalid("key", self.rotated(first, rotation(OLD, LOG, "acme 1"), keys=(OLDER, OLD, LOG)))
        self.invalid("key", self.rotated(first, rotation(OLD, LOG), keys=(OLDER, OLD, LOG)))

    def test_checkpoint_of_the_wrong_key(self):
        world = self.rotated(rotation(OLD, LOG, "acme 2"))
        said = checkpoint("acme", 3, mth(world.entries["acme"][:3]), OLD)
        world.put(C(2), said)
        self.invalid("checkpoint", world, batch=2)

    def test_bad(self):
        good = rotation(OLD, LOG, "acme 2")
        lines = good.split("\n")[:6]
        other = renamed(LOG, "other/_log")

        def signed(*lines):
            return note("\n".join(lines) + "\n", OLD, LOG)

        for bad in (
            "", "x", rotation(OLD, LOG, "acme 2", signers=[OLD]), rotation(OLD, LOG, "acme 2", signers=[LOG]),
            rotation(OLD, LOG, "acme 2", signers=[]), rotation(OLD, LOG, "acme 2", deployment="other"),
            rotation(OLD, other, "acme 2"), rotation(renamed(OLD, "other/_log"), LOG, "acme 2"),
            rotation(OLD, LOG, "acme 02"), rotation(OLD, LOG, "acme -1"), rotation(OLD, LOG, "acme"),
            rotation(OLD, LOG, "acme  2"), rotation(OLD, LOG, "acme 2 "), rotation(OLD, LOG, ""),
            rotation(OLD, LOG, "acme 2", "acme 2"), rotation(OLD, LOG, "b 1", "acme 2"), rotation(OLD, LOG, "A 1"),
            rotation(OLD, LOG, "acme 2", f"b {2**63}"), rotation(OLD, LOG, "acme 2", "b 0"), rotation(LOG, LOG, "acme 2"), signed("quipu.rotation.v2", *lines[1:]),
            signed(*lines[:4], "01", *lines[5:]), signed(*lines[:4]), signed(*lines, ""),
            good.replace("acme 2", "acme 3"), good + OLD.line("other\n"),
        ):  # fmt: skip
            with self.subTest(bad=bad):
                self.invalid("key", self.rotated(bad))
        self.valid(self.rotated(good + OLDER.line("passed over\n")))


class Headers(Case):
    """A header that its key's holder made wrong, and what it says of rows."""

    def first(self, **hooks):
        world = World(self.new())
        world.identity()
        return world.batch("acme", ("a", 3), ("b", 2), **hooks).batch("acme", ("a", 1))

    def test_numbering(self):
        world = self.copy()
        remove(world, H(2))
        remove(world, O(2))
        self.invalid("log", world, tenant="acme", batch=2)
        world = self.copy()
        for key in (H(3), O(3)):
            remove(world, key)
        self.invalid("log", world, batch=3)  # its signature is still there
        remove(world, S(3))
        self.invalid("tile", world, batch=None)
        for number in (0, 5, 2**64):
            world = self.copy()
            world.put(H(number), read(world, H(1)))
            self.invalid("log", world)

    def test_members(self):
        for member, values in {
            "format": ("quipu.batch.v2", None),
            "deployment": ("other", ""),
            "tenant": ("acm", "Acme", None),
            "batch": (0, 2, "1", 1.0, None),
            "prev": ("0" * 63, "AB" * 32),
            "first_leaf": (1, -1, "0"),
            "count": (4, 0, 6),
            "tree_size": (4, 6, 0, 2**63),
            "root": ("", "zz" * 32),
            "claimed_at": (TIME, "2026-02-08T10:00:00Z"),
            "commit_first": ("", "019c3c1e-0000-4000-8000-000000000000"),
            "commit_last": (None, "ffffffff-ffff-7fff-bfff-ffffffffffff"),
            "time_min": ("2026-02-30T10:00:00.000000Z",),
            "time_max": (1,),
            "bytes": (-1, "1"),
            "sha256": ("",),
            "staging": (1, None),
            "schema": (2, True, "1"),
            "runs": ([], {}, None, [1]),
            "blooms": (None, {}, {"sessions": "", "agents": ""}),
            "more": (1,),
        }.items():
            for value in values:
                with self.subTest(member=member, value=value):
                    self.invalid("header", self.first(header=lambda h: h.update({member: value})), batch=1)
        for member in self.standard.last["acme"]:
            self.invalid("header", self.first(header=lambda h: h.pop(member)), batch=1)
        for edit in (
            lambda h: h["runs"][0].update(more=1), lambda h: h["runs"][0].pop("hash"),
            lambda h: h["runs"][0].update(last=1), lambda h: h["runs"][0].update(first=3),
            lambda h: h["runs"][0].update(session_id=""), lambda h: h["runs"][0].update(session_id="b"),
            lambda h: h["runs"][0].update(hash="12"), lambda h: h["blooms"].update(more=""),
            lambda h: h["blooms"].update(types="="), lambda h: h["blooms"].update(types=None),
        ):  # fmt: skip
            self.invalid("header", self.first(header=edit), batch=1)
        for text in (
            lambda t: t[:-1], lambda t: t + "x", lambda t: t.replace('"schema": 1', '"schema": 1, "schema": 1'),
            lambda t: "", lambda t: "[]", lambda t: t.replace('"schema": 1', '"schema": 1.0'),
            lambda t: t.replace('"schema": 1', '"schema": 01'),
        ):  # fmt: skip
            self.invalid("header", self.first(text=text), batch=1)
        self.valid(self.first(text=lambda t: f"\n {t}\t"))

    def test_key_of_another_place(self):
        # Then no header names the object that is there.
        for key in (O(2), "x", O(1).replace("02-08", "02-07")):
            self.invalid("object", self.first(header=lambda h: h.update(key=key)))
            world = self.first(header=lambda h: h.update(key=key))
            remove(world, O(1))
            self.invalid("header", world, batch=1)

    def test_prev(self):
        self.invalid("log", self.first(header=lambda h: h.update(prev="12" * 32)), batch=1)
        world = self.first()
        world.batch("acme", ("b", 1), header=lambda h: h.update(prev="0" * 64))
        self.invalid("log", world, batch=3)

    def test_signatures(self):
        for number, value in ((0, "quipu.header.v2"), (1, "other"), (2, "acm"), (3, "2"), (3, "01"), (4, "12" * 32)):
            world = self.first(sign=lambda lines: lines.__setitem__(number, value))
            self.invalid("signature", world, batch=1)
        self.invalid("signature", self.first(sign=lambda lines: lines.append("")), batch=1)
        self.invalid("signature", self.first(signer=OLD), batch=1)
        self.invalid("signature", self.first(signer=RECEIPT), batch=1)
        world = self.first()
        world.put(S(1), read(world, S(2)))
        self.invalid("signature", world, batch=1)
        world = self.first()
        world.put(S(2), read(world, S(2)) + OLD.line("passed over\n").encode())
        self.valid(world)
        world.put(S(2), read(world, S(2)) + LOG.line("does not verify\n").encode())
        self.invalid("signature", world, batch=2)

    def test_rows_are_the_runs(self):
        for edit in (
            lambda rows: rows[:-1], lambda rows: rows[1:], lambda rows: [*rows, rows[-1]], lambda rows: rows[::-1],
            lambda rows: rows[3:] + rows[:3], lambda rows: [rows[0], rows[2], rows[1], *rows[3:]],
            lambda rows: rows[:3], lambda rows: [],
            lambda rows: rows[4].update(session_id="c"), lambda rows: rows[4].update(sequence=2),
        ):  # fmt: skip
            self.invalid("header", self.first(rows=edit), batch=1)

    def test_after_the_rows(self):
        for edit in (
            lambda h: h["runs"][0].update(hash="12" * 32), lambda h: h["runs"][1].update(hash="12" * 32),
            lambda h: h.update(root="12" * 32), lambda h: h.update(commit_first=h["commit_last"]),
            lambda h: h.update(commit_last=h["commit_first"]), lambda h: h.update(time_min=iso(TIME - 1)),
            lambda h: h.update(time_max=iso(TIME + 99)), lambda h: h["blooms"].update(agents=bloom(["x"])),
            lambda h: h["blooms"].update(types=bloom([])), lambda h: h["blooms"].update(sessions=""),
            lambda h: h["blooms"].update(sessions=bloom(["a", "b", *map(str, range(20))])),
        ):  # fmt: skip
            self.invalid("header", self.first(header=edit), batch=1, session_id=None)

    def test_checkpoints(self):
        def check(**changes):
            def make(tenant, size, root, signer):
                values = {"tenant": tenant, "size": size, "root": root, **changes}
                return checkpoint(values["tenant"], values["size"], values["root"], values.get("signer", signer))

            return self.first(check=make)

        for changes in ({"tenant": "acm"}, {"size": 4}, {"size": 6}, {"root": bytes(32)}, {"signer": OLD}):
            self.invalid("checkpoint", check(**changes), batch=1)
        good = checkpoint("acme", 5, mth(self.first().entries["acme"][:5]))
        text = good.split("\n\n")[0] + "\n"
        name = renamed(LOG, f"{DEPLOYMENT}/acme")
        for bad in (
            "", text, note(text, LOG), note(text + "extension\n", name), note(text.replace("\n5\n", "\n05\n"), name),
            note(text[:-2] + "\n", name), good + "x", good.replace("5", "6"),
            note(text.replace(DEPLOYMENT, "other"), renamed(LOG, "other/acme")),
        ):  # fmt: skip
            world = self.first()
            world.put(C(1), bad)
            self.invalid("checkpoint", world, batch=1)
        world = self.first()
        world.put(C(1), good + signature(OLD, "a witness\n"))
        self.valid(world)


class Rows(Case):
    def one(self, row=None, **hooks):
        world = World(self.new())
        world.identity()
        return world.batch("acme", ("a", 6), ("b", 2), row=row, **hooks)

    def at(self, index, **changes):
        """Row `index` edited before it is hashed."""
        return self.one(lambda at, row: row.update(changes) if at == index else None)

    def after(self, index, **changes):
        """Row `index` edited, its hash left."""
        return self.one(rows=lambda rows: rows[index].update(changes))

    def test_valid(self):
        self.valid(self.one())
        self.valid(
            self.at(
                0,
                agent_id="\u00e9" * 128, event_type="a" + "_.a" * 42 + "b", source_id="s" * 256,
                compliance_tag="t" * 64, redaction_count=2**32 - 1, payload="[" * 128 + "]" * 128,
                pii_types=",".join(f"n{i:02}" for i in range(32)), severity="critical",
            )
        )  # fmt: skip
        for time in (q.TIME_MIN, q.TIME_MAX, -1):
            times = {"timestamp": time, "timestamp_us": time, "received_at": time, "received_at_us": time}
            self.valid(self.at(5, **times))

    def test_columns(self):
        def renamed_column(table):
            return table.rename_columns([*table.column_names[:-1], "spanId"])

        def cast(name, type=None, nullable=None):
            def change(table):
                at = table.schema.get_field_index(name)
                field = table.schema.field(at)
                new = pa.field(name, type or field.type, field.nullable if nullable is None else nullable)
                return table.cast(table.schema.set(at, new))

            return change

        order = list(range(34))
        order[0], order[1] = 1, 0
        changes = [
            renamed_column,
            lambda table: table.drop_columns(["span_id"]),
            lambda table: table.append_column("more", pa.array([1] * len(table))),
            lambda table: table.select(order),
            cast("sequence", pa.int32()),
            cast("sequence", pa.uint64()),
            cast("timestamp", pa.timestamp("us")),
            cast("timestamp", pa.timestamp("ns", "UTC")),
            cast("received_at", pa.int64()),
            cast("received_at_us", MOMENT),
            cast("agent_id", pa.binary()),
            cast("hash", pa.binary(32)),
            cast("payload", pa.binary()),
            cast("cost_usd", pa.decimal128(38, 10)),
            cast("cost_usd", pa.decimal128(30, 12)),
            cast("cost_usd", pa.float64()),
            cast("duration_ms", pa.float32()),
            cast("success", pa.int32()),
            cast("input_tokens", pa.int32()),
            cast("redaction_count", pa.int32()),
            *(cast(name, nullable=True) for name in SCHEMA.names if not SCHEMA.field(name).nullable),
            cast("tool_name", nullable=False),
        ]
        for number, change in enumerate(changes):
            edit = None
            if number == len(changes) - 1:  # no nulls in it, so that it can be required

                def edit(rows):
                    for row in rows:
                        row["tool_name"] = "x"

            with self.subTest(number=number):
                self.invalid("object", self.one(rows=edit, table=change), batch=1)

    def test_a_writer_s_own_types_do_not_matter(self):
        """Arrow's names for the same Parquet columns, which it keeps in the file's metadata."""
        types = {
            "agent_id": pa.large_string(), "event_type": pa.dictionary(pa.int32(), pa.string()),
            "salt": pa.large_binary(), "timestamp": pa.timestamp("us", "Europe/Paris"),
            "hash": pa.large_binary(), "severity": pa.string_view(),
        }  # fmt: skip

        def change(table):
            for name, type in types.items():
                at = table.schema.get_field_index(name)
                table = table.cast(table.schema.set(at, pa.field(name, type, table.schema.field(at).nullable)))
            return table

        self.valid(self.one(table=change))

    def test_not_parquet(self):
        for data in (lambda d: b"", lambda d: b"PAR1", lambda d: d[:-1], lambda d: d[:4] + d[5:], lambda d: b"x" * 99):
            self.invalid("object", self.one(data=data), batch=1)
        source = random.Random(5)
        found = set()
        for _ in range(60):

            def flip(data):
                at = source.randrange(len(data))
                return data[:at] + bytes([data[at] ^ 1 << source.randrange(8)]) + data[at + 1 :]

            result = q.verify_archive(self.one(data=flip).root, self.file(LOG.vkey))
            self.assertIn(result["verdict"], ("VALID", "INVALID"), result)
            found.add(result["code"])
        self.assertIn("object", found)

    def test_text_that_is_not_utf8(self):
        def change(table):
            at = table.schema.get_field_index("agent_id")
            bad = pa.array([b"\xff"] * len(table), pa.binary()).view(pa.string())
            return table.set_column(at, table.schema.field(at), bad)

        self.invalid("object", self.one(table=change))

    def test_object(self):
        world = self.copy()
        world.put(O(1), read(world, O(2)))
        self.invalid("object", world, tenant="acme", batch=1)

    def test_every_column_edited(self):
        other = {
            "event_id": "019c3c1e-0000-7000-8000-0000000000ff",
            "timestamp": None, "timestamp_us": None, "received_at": None, "received_at_us": None,
            "agent_id": "stranger", "event_type": "tool", "severity": "warn", "source_id": "s",
            "compliance_tag": "other", "pii_types": "email", "redaction_count": 1,
            "redaction_policy": b"\xef" * 32, "payload": '{"n":1}', "metadata": '{"a":1}',
            "salt": b"\xff" * 16, "content_digest": b"\xff" * 32, "hash": b"\xff" * 32,
        }  # fmt: skip
        for name, value in other.items():
            if name.startswith(("timestamp", "received_at")):
                base = name.removesuffix("_us")
                world = self.after(4, **{base: TIME + 77, f"{base}_us": TIME + 77})
                self.invalid("hash", world, sequence=4)
                self.invalid("syntax", self.after(4, **{name: TIME + 77}), session_id="a", sequence=4)
            elif name == "event_id":
                # The commit's id is the event's without its low ten bits; no hash holds it by itself.
                commit = value[:-3] + "000"
                self.invalid("hash", self.after(4, event_id=value, commit_id=commit), session_id="a", sequence=4)
                self.invalid("syntax", self.after(4, event_id=value), session_id="a", sequence=4)
                self.invalid("syntax", self.after(4, commit_id=commit), session_id="a", sequence=4)
            elif name == "content_digest":
                self.invalid("syntax", self.after(4, content_digest=value), session_id="a", sequence=4)
                with one_erased():
                    world = self.after(2, content_digest=value)
                self.invalid("hash", world, session_id="a", sequence=2)
            else:
                self.invalid("hash", self.after(4, **{name: value}), session_id="a", sequence=4)

    def test_syntax(self):
        bad = {
            "event_id": ("", "019c3c1e-0000-4000-8000-000000000000", "019C3C1E-0000-7000-8000-000000000001"),
            "commit_id": ("", "019c3c1e-0000-4000-8000-000000000000"),
            "agent_id": ("", "a" * 257, "a\nb", "\x85"),
            "event_type": ("", "A", "a" * 129, "a..b"),
            "severity": ("", "fatal"),
            "source_id": ("", "\x7f"),
            "compliance_tag": ("", "t" * 65),
            "pii_types": (",", "b,a", "a,a", "a,", "A", ",".join(f"n{i:02}" for i in range(33)), "a b"),
            "redaction_count": (-1, 2**32),
            "redaction_policy": (b"", b"a" * 31, b"a" * 33),
            "salt": (b"", b"a" * 15, b"a" * 17),
            "payload": ("", "{ }", "[1,]", '{"a":1,"\\u0061":2}', '"' + "a" * 1048575 + '"', "[" * 129 + "]" * 129),
            "metadata": ("", "[]", "1", '{"a":"' + "b" * 65529 + '"}', '{"a":1,"a":1}'),
        }
        for name, values in bad.items():
            for value in values:
                with self.subTest(name=name, value=value[:40] if isinstance(value, str) else value):
                    place = {} if name == "commit_id" else {"session_id": "a", "sequence": 4, "batch": 1}
                    world = self.at(4, **{name: value}) if name != "commit_id" else self.after(4, commit_id=value)
                    self.invalid("syntax", world, **place)
        for name in ("payload", "metadata", "salt"):
            self.invalid("syntax", self.after(4, **{name: None}), sequence=4)
            with one_erased():
                world = self.after(2, **{name: "{}" if name != "salt" else b"a" * 16})
            self.invalid("syntax", world, sequence=2)
        with one_erased():
            for digest in (b"a" * 31, None):
                self.invalid("syntax", self.after(2, content_digest=digest))
            self.invalid("erased", self.at(0), session_id="a", sequence=2)
        for time in (q.TIME_MIN - 1, q.TIME_MAX + 1, -(2**63), 2**63 - 1):
            for name in ("timestamp", "received_at"):
                self.invalid("syntax", self.after(4, **{name: time, f"{name}_us": time}))
        for index in (1, 5, 7):
            self.invalid("syntax", self.after(index, prev_hash=b"a" * 32))
        for index in (0, 6):
            for value in (None, b"", b"a" * 31):
                self.invalid("syntax", self.after(index, prev_hash=value), sequence=0)
        self.invalid("syntax", self.after(4, hash=b"a" * 31))

    def test_first_event_names_one_before_it(self):
        self.invalid("prev_hash", self.at(0, prev_hash=b"a" * 32), session_id="a", sequence=0)

    def test_continuity(self):
        def chain(session, first, previous, *, count=1):
            world = World(self.new())
            world.identity()
            world.batch("acme", ("a", 2), ("b", 1))
            world.chains["acme", session] = (first, world.chains["acme", session][1] if previous is None else previous)
            return world.batch("acme", (session, count))

        self.valid(chain("a", 2, None))
        self.invalid("sequence", chain("a", 3, None), tenant="acme", session_id="a", sequence=3)
        self.invalid("sequence", chain("a", 1, None), session_id="a", sequence=1)
        self.invalid("prev_hash", chain("a", 2, b"a" * 32), session_id="a", sequence=2)
        world = self.one()
        world.chains["acme", "c"] = (1, bytes(32))
        self.invalid("sequence", world.batch("acme", ("c", 1)), session_id="c", sequence=1)
        # By first sequence, whichever batch they are in.
        world = World(self.new())
        world.identity()
        made = World(self.new())
        rows = made.rows("acme", [("a", 4)])
        world.number, world.chains["acme", "a"] = 2, (2, rows[1]["hash"])
        world.batch("acme", ("a", 2))
        world.number = 0
        del world.chains["acme", "a"]
        self.invalid("sequence", self.clone(world), session_id="a", sequence=2)
        world.batch("acme", ("a", 2), row=lambda at, row: row.update({k: rows[at][k] for k in ("event_id", "commit_id")}))
        self.valid(world)

    def clone(self, world):
        root = self.new()
        shutil.copytree(world.root, root, dirs_exist_ok=True)
        return root

    def test_derived(self):
        for name, value in {
            "tool_name": "x", "call_id": "x", "provider": "x", "model": "x", "input_tokens": 1, "output_tokens": 1,
            "total_tokens": 1, "cost_usd": Decimal("0.000000000001"), "duration_ms": 0.0, "success": False,
            "trace_id": "x", "span_id": "x",
        }.items():  # fmt: skip
            for index in (0, 2):  # 2 is erased
                with one_erased():
                    world = self.at(index, **{name: value})
                self.invalid("derived", world, session_id="a", sequence=index)
        for name in ("tool_name", "call_id", "input_tokens", "cost_usd", "trace_id"):
            self.invalid("derived", self.at(1, **{name: None}), sequence=1)
        self.invalid("derived", self.at(3, success=None), sequence=3)
        self.invalid("derived", self.at(1, cost_usd=Decimal("0.250000000001")), sequence=1)
        self.invalid("derived", self.at(1, duration_ms=math.nan), sequence=1)
        self.valid(self.at(0, payload='{"costUsd":1e12,"durationMs":-2.5e-3}',
                           cost_usd=Decimal(10**12), duration_ms=-0.0025))  # fmt: skip


class Derived(unittest.TestCase):
    def check(self, payload, metadata="{}", event_type="custom", **expected):
        q.check_json(payload, compact=True)
        found = dict(zip(q.DERIVED, q.derive(event_type, payload, metadata), strict=True))
        self.assertEqual(found, {**NOTHING, **expected}, payload)

    def test_names(self):
        self.check("{}")
        self.check("[]", event_type="tool_response", success=True)
        self.check('"x"', event_type="tool_error", success=False)
        self.check('{"success":1}', event_type="tool_error")
        self.check('{"success":null}', event_type="tool_response")
        self.check('{"success":false}', event_type="tool_response", success=False)
        self.check('{"success":"true"}')
        self.check("{}", event_type="tool_response.x")
        self.check('{"toolName":"a","tool_name":"b"}', tool_name="a")
        self.check('{"tool_name":"b","toolName":null}')
        self.check('{"tool_name":"b"}', tool_name="b")
        self.check('{"t\\u006folName":"\\ud83d\\ude00"}', tool_name="\U0001f600")
        self.check('{"callId":"a","call_id":"b","provider":"p","model":"m"}', call_id="a", provider="p", model="m")
        self.check('{"ToolName":"a","toolname":"b","tool":{"toolName":"c"}}')
        self.check('{"payload":{"model":"m"}}', '{"model":"m"}')

    def test_short_texts(self):
        for text in ('""', '"a\\n"', '"\\u0085"', '"\x7f"', '"' + "a" * 257 + '"', '"' + "\u00e9" * 129 + '"', "1", "{}"):
            self.check(f'{{"model":{text}}}')
        for text in ("a" * 256, "\u00e9" * 128, " ", "\u2028"):
            self.check(f'{{"model":"{text}"}}', model=text)
        self.check('{"model":"' + "\\u0061" * 256 + '"}', model="a" * 256)

    def test_tokens(self):
        self.check('{"usage":{"inputTokens":1},"inputTokens":2}', input_tokens=1)
        self.check('{"usage":{"input_tokens":1},"inputTokens":2}', input_tokens=1)
        self.check('{"usage":{"inputTokens":null,"input_tokens":1},"inputTokens":2}')
        self.check('{"usage":{"outputTokens":1},"input_tokens":2}', output_tokens=1, input_tokens=2)
        self.check('{"usage":[],"inputTokens":2}', input_tokens=2)
        self.check('{"usage":null,"total_tokens":2}', total_tokens=2)
        for text, value in (("0", 0), (str(2**63 - 1), 2**63 - 1)):
            self.check(f'{{"totalTokens":{text}}}', total_tokens=value)
        for text in (str(2**63), "-0", "-1", "1.0", "1e0", '"1"', "9" * 9999, "true", "[]"):
            self.check(f'{{"totalTokens":{text}}}')

    def test_costs(self):
        for text, value in {
            "0": "0", "-0": "0", "-0.0e9": "0", "1": "1", "-1.5": "-1.5", "0.000000000001": "1e-12",
            "0.0000000000005": "1e-12", "-0.0000000000005": "-1e-12", "0.0000000000004999": "0",
            "-0.0000000000004": "0", "0.1": "0.1", "1.0000000000014999999999": "1.000000000001",
            "1.0000000000015": "1.000000000002", "0.9999999999995": "1", "1e12": "1e12", "1e13": "1e12",
            "-1E+400": "-1e12", "1000000000000.0000000000001": "1e12", "999999999999.9999999999994":
            "999999999999.999999999999", "999999999999.9999999999995": "1e12", "1e-400": "0",
            "0." + "0" * 5000 + "15e5001": "1.5", "1" + "0" * 5000 + "e-5000": "1", "1e" + "9" * 5000: "1e12",
            "-1e-" + "9" * 5000: "0", "0e" + "9" * 5000: "0", "123456789.123456789e-3": "123456.789123456789",
            "0.05e1": "0.5", "1e-12": "1e-12", "5e-13": "1e-12", "4.9e-13": "0", "12e-13": "1e-12", "9e-14": "0",
            "1e000000000000000001": "10",
        }.items():  # fmt: skip
            self.check(f'{{"costUsd":{text}}}', cost_usd=Decimal(value))
        for text in ('"1"', "null", "true", "[]"):
            self.check(f'{{"costUsd":{text},"cost_usd":1}}')

    def test_costs_agree_with_fractions(self):
        from fractions import Fraction

        source = random.Random(7)
        for _ in range(3000):
            digits = "".join(source.choice("0123456789") for _ in range(source.randint(1, 30)))
            text = (str(int(digits[: source.randint(1, 15)])) + "." + digits + f"e{source.randint(-30, 15)}")
            text = source.choice(("", "-")) + text
            exact = Fraction(Decimal(text)) * 10**12
            units = math.floor(abs(exact) + Fraction(1, 2))
            expected = min(units, 10**24) * (-1 if exact < 0 else 1)
            self.assertEqual(q.scaled_cost(text), expected, text)

    def test_durations(self):
        for text, value in {
            "1": 1.0, "0.1": 0.1, "-2.5": -2.5, "1e308": 1e308, "5e-324": 5e-324, "2e-324": 0.0, "1e-999": 0.0,
            "9007199254740993": 9007199254740992.0, "9007199254740993.0000000000001": 9007199254740994.0,
            "1.7976931348623157e308": sys.float_info.max, "1.7976931348623158e308": sys.float_info.max,
            "0." + "0" * 5000 + "15e5001": 1.5,
        }.items():  # fmt: skip
            self.check(f'{{"durationMs":{text}}}', duration_ms=value)
            self.check(f'{{"duration_ms":{text}}}', duration_ms=value)
        for text in ("1e309", "-1e309", "1.7976931348623159e308", "1e" + "9" * 5000, '"1"', "null"):
            self.check(f'{{"durationMs":{text}}}')

    def test_spans(self):
        self.check('{"traceId":"a"}', '{"traceId":"b","spanId":"c"}', trace_id="a", span_id="c")
        self.check('{"trace_id":"a"}', '{"traceId":"b"}', trace_id="a")
        self.check('{"trace_id":1}', '{"traceId":"b"}')
        self.check("[]", '{"span_id":"b","model":"m"}', span_id="b")


class Blooms(unittest.TestCase):
    def test_blooms(self):
        source = random.Random(11)
        for count in [*range(12), 100, 1000]:
            values = {f"v\u00e4{source.random()}" for _ in range(count)}
            found = q.bloom(values)
            self.assertEqual(base64.b64encode(found).decode(), bloom(values))
            self.assertEqual(len(found), max(8, -(-10 * count // 8)))
        # One value by hand: the words of SHA-256("abc") modulo 64.
        words = (0xBA7816BF, 0x8F01CFEA, 0x414140DE, 0x5DAE2223, 0xB00361A3, 0x96177A9C, 0xB410FF61)
        number = sum(1 << bit for bit in {word % 64 for word in words})
        self.assertEqual(q.bloom(["abc"]), number.to_bytes(8, "little"))


class Tiles(Case):
    def test_paths(self):
        for index, text in ((0, "000"), (999, "999"), (1000, "x001/000"), (1234067, "x001/x234/067")):
            self.assertEqual(q.tile_path("0", index), f"0/{text}")
            self.assertEqual(q.parse_tile_path(f"0/{text}"), ("0", index, 256))
            self.assertEqual(q.parse_tile_path(f"entries/{text}.p/255"), ("entries", index, 255))
        for text in (
            "0/0", "0/00", "0/x000/001", "0/x001", "00/001", "64/000", "0/000.p/0", "0/000.p/256", "0/000.p/01",
            "0/001/000", "0/x01/000", "a/000", "0/000/", "/0/000", "0/000.p", "0/000.p/", "0/000.p/1/x",
        ):  # fmt: skip
            self.assertIsNone(q.parse_tile_path(text), text)

    def test_a_large_tree(self):
        """65,536 leaves and some: all of level 0, and level 1 full."""
        files = {}

        class Memory:
            def read(self, key, limit):
                return files.get(key)

            def names(self, folder):
                return sorted(key.removeprefix(folder + "/") for key in files if key.startswith(folder + "/"))

            def keys(self, prefix):
                return sorted(files)

        entries = [sha(struct.pack(">I", number)) for number in range(65536 + 700)]
        for key, data in tile_files(entries).items():
            files[f"log/t/{key}"] = data
        self.assertIn("log/t/tile/1/000", files)
        self.assertIn("log/t/tile/2/000.p/1", files)
        self.assertIn("log/t/tile/entries/258.p/188", files)

        def check(unfinished=False):
            tiles = q.Tiles(Memory(), "t")
            for entry in entries:
                tiles.push(entry, q.leaf_hash(entry))
            tiles.finish(len(entries), unfinished)

        check()
        good = dict(files)
        for key in ("tile/1/000", "tile/2/000.p/1", "tile/0/257", "tile/1/001.p/2", "tile/entries/258.p/188"):
            for change in (lambda data: None, lambda data: data[:-1], lambda data: data + b"x", lambda data: data[::-1]):
                files.clear()
                files.update(good)
                files[f"log/t/{key}"] = change(good[f"log/t/{key}"])
                if files[f"log/t/{key}"] is None:
                    del files[f"log/t/{key}"]
                with self.assertRaises(q.Bad) as found:
                    check()
                self.assertEqual(found.exception.code, "tile")
        files.clear()
        files.update(good)
        files["log/t/tile/2/000"] = bytes(8192)
        with self.assertRaises(q.Bad):
            check()
        check(unfinished=True)

    def test_of_an_archive(self):
        world = World(self.new())
        world.identity()
        world.batch("acme", ("a", 250)).batch("acme", ("a", 6)).batch("acme", ("b", 20))
        self.valid(world)
        prefix = "log/acme/tile"
        for key in (
            "0/000", "0/001.p/20", "1/000.p/1", "entries/000", "entries/001.p/20", "0/000.p/250", "entries/000.p/250",
        ):  # fmt: skip
            good = read(world, f"{prefix}/{key}")
            for bad in (b"", good[:-1], good + b"x", good[:-1] + bytes([good[-1] ^ 1])):
                world.put(f"{prefix}/{key}", bad)
                self.invalid("tile", world, tenant="acme", batch=None, session_id=None)
            remove(world, f"{prefix}/{key}")
            (self.valid if "000.p/250" in key else functools.partial(self.invalid, "tile"))(world)
            world.put(f"{prefix}/{key}", good)
        hashes = read(world, f"{prefix}/0/000")
        for width in (1, 9, 255):
            world.put(f"{prefix}/0/000.p/{width}", hashes[: 32 * width])
        self.valid(world)
        for key in ("0/001.p/21", "0/001", "1/000.p/2", "2/000.p/1", "entries/002.p/1", "0/x001/000"):
            world.put(f"{prefix}/{key}", bytes(8192))
            self.invalid("tile", world, tenant="acme")
            remove(world, f"{prefix}/{key}")


class Ends(Case):
    """Where the log ends: the newest checkpoint, crashes, what was kept outside."""

    STEPS = ("object", "sig", "tiles", "checkpoint", "newest")

    def test_newest(self):
        for content in (b"", b"x", read(self.standard, C(1)), read(self.standard, C(3)) + b"\n"):
            world = self.copy()
            world.put("log/acme/checkpoint", content)
            self.invalid("checkpoint", world, tenant="acme", batch=None)
        world = self.copy()
        world.put(C(4), read(world, C(3)))
        self.invalid("checkpoint", world, tenant="acme", batch=4)
        remove(world, C(4))
        remove(world, "log/acme/checkpoint")
        self.invalid("checkpoint", world, tenant="acme")

    def test_unfinished(self):
        for count in range(5):
            for steps in {self.STEPS[:count], (*self.STEPS[1:count],)}:
                world = self.copy()
                world.batch("acme", ("run 1", 2), ("new", 1), steps=steps)
                result = self.incomplete("unfinished", world)
                self.assertEqual(result["logs"][0]["tree_size"], 13)
                self.incomplete("no_key", world, key=None)
                world = World(self.new())
                world.identity()
                world.batch("acme", ("run 1", 2), steps=steps)
                result = self.incomplete("unfinished", world)
                self.assertEqual(result["logs"], [{"tenant": "acme", "tree_size": 0, "root": sha().hex()}])
        world = self.copy()
        self.valid(world.batch("acme", ("run 1", 2), steps=self.STEPS))

    def test_not_as_a_crash_leaves_it(self):
        world = self.copy()
        world.batch("acme", ("run 1", 2), steps=("object", "tiles", "checkpoint"))
        self.invalid("signature", world, batch=4)
        world = self.copy()
        remove(world, S(3))
        self.invalid("signature", world, batch=3)
        world = self.copy()
        remove(world, C(3))
        self.invalid("checkpoint", world, batch=3)
        world = self.copy()
        world.batch("acme", ("run 1", 2), steps=()).batch("acme", ("run 1", 2), steps=())
        self.invalid("signature", world, batch=4)

    def test_what_is_wrong_before_the_end_is_found(self):
        world = self.copy()
        world.batch("acme", ("run 1", 2), steps=())
        world.put(O(2), b"x")
        self.invalid("object", world, batch=2)

    def test_rollback(self):
        entries = self.standard.entries["acme"]
        kept = {size: checkpoint("acme", size, mth(entries[:size])) for size in (0, 1, 5, 8, 13)}
        self.valid(self.base, kept=kept.values())
        self.valid(self.base, kept=[kept[5], checkpoint("zeta-2", 7, mth(self.standard.entries["zeta-2"]))])
        for bad in (
            "", "x", b"\xff", kept[5].split("\n\n")[0], checkpoint("acme", 5, mth(entries[:6])),
            checkpoint("acme", 14, mth(entries)), checkpoint("acme", 0, bytes(32)),
            checkpoint("other", 0, mth([])), checkpoint("other", 5, mth(entries[:5])),
            checkpoint("acme", 5, mth(entries[:5]), OLD), checkpoint("acme", 5, mth(entries[:5]), deployment="other"),
            kept[5] + "x", b"x" * 1000001, note(kept[5].split("\n\n")[0] + "\n", LOG),
        ):  # fmt: skip
            with self.subTest(bad=bad[:80]):
                self.invalid("rollback", self.base, kept=[kept[8], bad], batch=None)
                self.invalid("rollback", self.base, kept=[bad], key=None)
        # The whole log rolled back to its second batch, in every place.
        world = World(self.new())
        world.identity()
        world.batch("acme", ("run 1", 3), ("lauf \u00fc", 2))
        self.valid(world)
        self.valid(world, kept=[kept[5]])
        self.invalid("rollback", world, kept=[kept[8]], tenant="acme")
        world = self.copy()
        world.put(O(2), b"x")
        self.invalid("object", world, kept=["x"])

    def receipt(self, session, sequence, tenant="acme", time=TIME, digest=None, **other):
        event = {
            "sequence": sequence,
            "hash": digest or self.standard.events[tenant, session, sequence].hex(),
        }
        made = bundles.receipt(session, event, tenant=tenant, time=time, **other)
        return {**made, "time": iso(time)}

    def test_receipts(self):
        good = [self.receipt("run 1", at) for at in range(6)] + [self.receipt("run 1", 6, "zeta-2")]
        self.valid(self.base, receipts=[good, good[0]["note"]])
        wrong = self.receipt("run 1", 4, digest="12" * 32)
        self.invalid("receipt", self.base, receipts=[good, wrong], tenant="acme", session_id="run 1", sequence=4)
        self.invalid("receipt", self.base, receipts=[self.receipt("run 1", 4, signer=OLD)])
        self.invalid("receipt", self.base, receipts=["rubbish"], tenant=None)
        self.invalid("receipt", self.base, receipts=[wrong], key=None)
        self.invalid("rollback", self.base, receipts=[wrong], kept=["x"])

    def test_receipts_of_events_that_are_not_there(self):
        # The last batch of acme was claimed three hours after TIME.
        claimed = TIME + 3 * HOUR
        for session, sequence in (("run 1", 6), ("absent", 0)):
            for time, fits in ((claimed, True), (claimed - 24 * HOUR, True), (claimed - 24 * HOUR - 1, False)):
                said = self.receipt(session, sequence, time=time, digest="12" * 32)
                if fits:
                    self.incomplete("receipt_not_covered", self.base, receipts=[said])
                    self.incomplete("no_key", self.base, receipts=[said], key=None)
                else:
                    self.invalid("receipt", self.base, receipts=[said], session_id=session, sequence=sequence)
        said = self.receipt("run 1", 0, "zeta-3", time=0, digest="12" * 32)
        self.incomplete("receipt_not_covered", self.base, receipts=[said])
        # Of an event whose batch is unfinished.
        world = self.copy().batch("acme", ("run 1", 1), steps=(), claimed_at=claimed + 99 * HOUR)
        said = self.receipt("run 1", 6, digest=world.events["acme", "run 1", 6].hex())
        self.incomplete("unfinished", world, receipts=[said])


if __name__ == "__main__":
    unittest.main()
