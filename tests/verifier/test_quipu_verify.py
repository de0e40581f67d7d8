"""Tests of the second verifier: python3 -m unittest discover -s tests/verifier"""

import base64
import contextlib
import copy
import functools
import hashlib
import io
import json
import os
import random
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import quipu_verify as q  # noqa: E402


# ---------------------------------------------------------------- signing


def secret_scalar(seed):
    digest = hashlib.sha512(seed).digest()
    scalar = int.from_bytes(digest[:32], "little")
    return scalar & ((1 << 254) - 8) | (1 << 254), digest[32:]


def public_key(seed):
    return q.encode_point(q.multiply(secret_scalar(seed)[0], q.BASE))


def sign(seed, message):
    scalar, prefix = secret_scalar(seed)
    public = q.encode_point(q.multiply(scalar, q.BASE))
    nonce = int.from_bytes(hashlib.sha512(prefix + message).digest(), "little") % q.L
    r = q.encode_point(q.multiply(nonce, q.BASE))
    k = int.from_bytes(hashlib.sha512(r + public + message).digest(), "little") % q.L
    return r + ((nonce + k * scalar) % q.L).to_bytes(32, "little")


class Signer:
    def __init__(self, name, seed):
        self.name, self.seed = name, hashlib.sha256(seed.encode()).digest()
        self.data = b"\x01" + public_key(self.seed)
        self.id = hashlib.sha256(name.encode() + b"\n" + self.data).digest()[:4]
        self.vkey = f"{name}+{self.id.hex()}+{base64.b64encode(self.data).decode()}"

    def line(self, text):
        data = self.id + sign(self.seed, text.encode())
        return f"\u2014 {self.name} {base64.b64encode(data).decode()}\n"

    def note(self, text):
        return f"{text}\n{self.line(text)}"


DEPLOYMENT, TENANT = "ledger.example", "acme"
LOG = Signer(f"{DEPLOYMENT}/_log", "log")
RECEIPT = Signer(f"{DEPLOYMENT}/_receipt", "receipt")
OTHER_LOG = Signer(f"{DEPLOYMENT}/_log", "other log")
OTHER_RECEIPT = Signer(f"{DEPLOYMENT}/_receipt", "other receipt")
OLD, OLDER = Signer(LOG.name, "old"), Signer(LOG.name, "older")
TIME, TIME_TEXT = 1770544800000000, "2026-02-08T10:00:00.000000Z"


def certificate(signer=LOG, key=RECEIPT, deployment=DEPLOYMENT, purpose="receipt", time=TIME):
    return signer.note(f"quipu.key.v1\n{deployment}\n{purpose}\n{key.vkey}\n{time}\n")


def statement(kind, session_id, sequence, digest, signer=RECEIPT, tenant=TENANT, time=TIME):
    return signer.note(f"{kind}\n{tenant}\n{session_id}\n{sequence}\n{digest}\n{time}\n")


def head(session_id, event, **other):
    note = statement("quipu.head.v1", session_id, event["sequence"], event["hash"], **other)
    return {"kind": "head", "note": note}


def receipt(session_id, event, **other):
    note = statement("quipu.receipt.v1", session_id, event["sequence"], event["hash"], **other)
    return {
        "session_id": session_id,
        "sequence": event["sequence"],
        "hash": event["hash"],
        "time": TIME_TEXT,
        "note": note,
    }


@functools.lru_cache(None)
def signature(signer, text):
    return signer.line(text)


def note(text, *signers):
    return f"{text}\n" + "".join(signature(signer, text) for signer in signers)


@functools.lru_cache(None)
def renamed(signer, name):
    """The same key under another name."""
    other = copy.copy(signer)
    other.name = name
    other.id = hashlib.sha256(name.encode() + b"\n" + signer.data).digest()[:4]
    other.vkey = f"{name}+{other.id.hex()}+{base64.b64encode(signer.data).decode()}"
    return other


def checkpoint(tenant, size, root, *signers, deployment=DEPLOYMENT):
    origin = f"{deployment}/{tenant}"
    text = f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n"
    return note(text, *(renamed(signer, origin) for signer in signers or [LOG]))


def rotation(old, new, *tenants, deployment=DEPLOYMENT, signers=None):
    lines = ["quipu.rotation.v1", deployment, old.vkey, new.vkey, str(TIME), *tenants]
    return note("\n".join(lines) + "\n", *([old, new] if signers is None else signers))


# ------------------------------------------------------------------- tree


def sha(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def mth(entries):
    """RFC 6962, section 2.1, as it stands there."""
    if len(entries) < 2:
        return sha(b"\0", entries[0]) if entries else sha()
    k = 1
    while k * 2 < len(entries):
        k *= 2
    return sha(b"\1", mth(entries[:k]), mth(entries[k:]))


def path(index, entries):
    """RFC 6962, section 2.1.1."""
    if len(entries) == 1:
        return []
    k = 1
    while k * 2 < len(entries):
        k *= 2
    if index < k:
        return [*path(index, entries[:k]), mth(entries[k:])]
    return [*path(index - k, entries[k:]), mth(entries[:k])]


def range_proof(low, high, first, count, entries):
    """The roots outside of a range of leaves, in the order of section 5."""
    if high <= first or low >= first + count:
        return [mth(entries[low:high])]
    if high - low == 1:
        return []
    k = 1
    while k * 2 < high - low:
        k *= 2
    left = range_proof(low, low + k, first, count, entries)
    return left + range_proof(low + k, high, first, count, entries)


# ----------------------------------------------------------------- bundle


def rehash(event, session_id, tenant=TENANT):
    """The hash of section 3, spelled out a second time and independent of the verifier."""
    digest = event["content_digest"]
    if digest is None:
        content = b"quipu.content.v1\n" + bytes.fromhex(event["salt"])
        content += event["payload"].encode() + b"\n" + event["metadata"].encode()
        digest = hashlib.sha256(content).hexdigest()
    text = "quipu.event.v1\n{}\n{}\n{}\n{}\n{}\n{}\n{}\n{}\n{}\n{}\n{}\n{}\n{}\n{}\n{}\n{}".format(
        event["prev_hash"],
        tenant,
        session_id,
        event["sequence"],
        event["event_id"],
        TIME + event["sequence"],
        TIME + 1000000,
        event["agent_id"],
        event["event_type"],
        event["severity"],
        event["source_id"] or "",
        event["compliance_tag"],
        ",".join(event["pii_types"]),
        event["redaction_count"],
        event["redaction_policy"] or "",
        digest,
    )
    event["hash"] = hashlib.sha256(text.encode()).hexdigest()
    return event


def make_event(session_id, sequence, prev_hash, **changes):
    event = {
        "kind": "event",
        "sequence": sequence,
        "event_id": f"019c3c1e-0000-7000-8000-{sequence:012x}",
        "timestamp": f"2026-02-08T10:00:00.{sequence:06d}Z",
        "received_at": "2026-02-08T10:00:01.000000Z",
        "agent_id": "agent/1",
        "event_type": "tool.call_started",
        "severity": "info",
        "source_id": None,
        "compliance_tag": "default",
        "pii_types": [],
        "redaction_count": 0,
        "redaction_policy": None,
        "salt": f"{sequence + 1:032x}",
        "payload": f'{{"n":{sequence},"v":1.0,"t":"\\u0041\u00e9"}}',
        "metadata": "{}",
        "content_digest": None,
        "prev_hash": prev_hash,
        "hash": "",
    }
    event.update(changes)
    return rehash(event, session_id)


def make_session(session_id, count, erased=False):
    events, previous = [], "0" * 64
    for sequence in range(count):
        changes = {}
        if sequence == 1:
            changes = {
                "source_id": "source \u2028 1",
                "pii_types": ["email", "name_2"],
                "redaction_count": 3,
                "redaction_policy": "ab" * 32,
            }
        if sequence == 2 and erased:
            changes = {
                "salt": None,
                "payload": None,
                "metadata": None,
                "content_digest": "cd" * 32,
            }
        events.append(make_event(session_id, sequence, previous, **changes))
        previous = events[-1]["hash"]
    return events


def first_record(**changes):
    record = {
        "kind": "bundle",
        "format": "quipu.bundle.v1",
        "deployment": DEPLOYMENT,
        "tenant": TENANT,
        "created_at": TIME_TEXT,
        "log_key": LOG.vkey,
        "certificates": [certificate()],
    }
    record.update(changes)
    return record


A, B = make_session("run 1", 4), make_session("lauf \u00fc", 2)
RECORDS = [
    first_record(),
    {"kind": "session", "session_id": "run 1"},
    *A,
    head("run 1", A[-1]),
    {"kind": "session", "session_id": "lauf \u00fc"},
    *B,
    head("lauf \u00fc", B[-1]),
    {"kind": "end", "sessions": 2, "events": 6},
]
FIRST_EVENT, HEAD_A, SESSION_B, HEAD_B, END = 2, 6, 7, 10, 11

# The same with the third event erased, and then with its tombstone.
GONE = make_session("run 1", 4, erased=True)
ERASED = [*RECORDS[:2], *GONE, head("run 1", GONE[-1]), *RECORDS[7:]]
SAID = {
    "event_id": GONE[2]["event_id"],
    "session_id": "run 1",
    "sequence": 2,
    "hash": GONE[2]["hash"],
    "content_digest": "cd" * 32,
    "token_id": "tok",
    "reason": None,
}
TOMB = "_erased/" + GONE[2]["event_id"]


def buried(said=None, session_id=TOMB, before=(), **changes):
    """ERASED with a tombstone's session, after other events of it."""
    events, previous = [], "0" * 64
    payload = json.dumps(SAID if said is None else said, separators=(",", ":"))
    for other in (*before, {"event_type": "quipu.erased", "payload": payload, **changes}):
        events.append(make_event(session_id, len(events), previous, **other))
        previous = events[-1]["hash"]
    session = [{"kind": "session", "session_id": session_id}, *events, head(session_id, events[-1])]
    return [*ERASED[:-1], *session, {"kind": "end", "sessions": 3, "events": 6 + len(events)}]


def encode(records):
    return [(json.dumps(record) + "\n").encode() for record in records]


LINES = encode(RECORDS)


class Case(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        self.key = self.file("key", LOG.vkey + "\n")

    def file(self, name, content):
        path = os.path.join(self.directory, name)
        with open(path, "wb") as file:
            file.write(content if isinstance(content, bytes) else content.encode())
        return path

    def run_verifier(self, content, key=True, receipts=(), kept=()):
        if isinstance(content, list):
            content = b"".join(encode(content) if isinstance(content[0], dict) else content)
        key_path = self.key if key is True else key or None
        paths = [
            self.file(f"receipt{i}", item if isinstance(item, (str, bytes)) else json.dumps(item))
            for i, item in enumerate(receipts)
        ]
        checkpoints = [self.file(f"checkpoint{i}", item) for i, item in enumerate(kept)]
        return q.verify(self.file("bundle", content), key_path, paths, checkpoints)

    def expect(self, code, content, verdict="INVALID", **other):
        place = {name: other.pop(name) for name in ("session_id", "sequence", "line") if name in other}
        result = self.run_verifier(content, **other)
        self.assertEqual((result["verdict"], result["code"]), (verdict, code), result)
        for name, value in place.items():
            self.assertEqual(result[name], value, result)
        self.assertTrue(q.describe(result).startswith(verdict))
        return result

    def valid(self, content, **other):
        return self.expect(None, content, "VALID", **other)

    def incomplete(self, code, content, **other):
        return self.expect(code, content, "INCOMPLETE", **other)

    def edited(self, index, **changes):
        records = copy.deepcopy(RECORDS)
        records[index].update(changes)
        return records

    def edited_erased(self, **changes):
        records = copy.deepcopy(ERASED)
        records[4].update(changes)
        return records

    def replaced(self, index, raw):
        lines = list(LINES)
        lines[index] = raw if isinstance(raw, bytes) else raw.encode()
        return lines


# ------------------------------------------------------------------ tests


class Verdicts(Case):
    def test_valid(self):
        result = self.valid(RECORDS)
        self.assertEqual((result["sessions"], result["events"]), (2, 6))

    def test_order_and_spacing_of_members_are_free(self):
        records = [dict(reversed(record.items())) for record in RECORDS]
        self.valid([(json.dumps(r, indent=None, separators=(" ,", " : ")) + "\n").encode() for r in records])

    def test_raw_utf8(self):
        self.valid([(json.dumps(r, ensure_ascii=False) + "\n").encode() for r in RECORDS])

    def test_no_key(self):
        self.incomplete("no_key", RECORDS, key=None)

    def test_invalid_comes_before_no_key(self):
        self.expect("hash", self.edited(3, severity="warn"), key=None)

    def test_unreadable(self):
        missing = os.path.join(self.directory, "missing")
        for path in (missing, self.directory, "a\0b"):
            result = q.verify(path, self.key)
            self.assertEqual((result["verdict"], result["code"]), ("INCOMPLETE", "unreadable"))
        self.incomplete("unreadable", RECORDS, key=missing)
        result = q.verify(self.file("good", b"".join(LINES)), self.key, [missing])
        self.assertEqual((result["verdict"], result["code"]), ("INCOMPLETE", "unreadable"))
        self.expect("hash", self.edited(3, severity="warn"), key=missing)

    def test_two_receipt_keys(self):
        records = self.edited(0, certificates=[certificate(), certificate(key=OTHER_RECEIPT)])
        records[HEAD_B] = head("lauf \u00fc", B[-1], signer=OTHER_RECEIPT)
        self.valid(records)
        # Both keys are known now, so a bad signature of either makes a head bad.
        note = records[HEAD_B]["note"] + RECEIPT.line("other\n")
        records[HEAD_B] = {"kind": "head", "note": note}
        self.expect("head", records, line=11)

    def test_command_line(self):
        good, bad = self.file("good", b"".join(LINES)), self.file("bad", LINES[0])
        for arguments, status, start in (
            ([good, "--key", self.key], 0, "VALID "),
            ([good], 2, "INCOMPLETE no_key"),
            ([bad], 1, "INVALID truncated"),
            ([os.path.join(self.directory, "none")], 2, "INCOMPLETE unreadable"),
        ):
            with contextlib.redirect_stdout(io.StringIO()) as out:
                self.assertEqual(q.main(arguments), status)
            self.assertTrue(out.getvalue().startswith(start), out.getvalue())
            with contextlib.redirect_stdout(io.StringIO()) as out:
                self.assertEqual(q.main([*arguments, "--json"]), status)
            result = json.loads(out.getvalue())
            self.assertEqual(result["verdict"], start.split(" ")[0])
            self.assertEqual(
                list(result),
                ["verdict", "code", "session_id", "sequence", "line", "message", "sessions", "events"],
            )
        for arguments in ([], [good, "--vectors", good], ["--vectors", good, "--json"], ["--what"]):
            with contextlib.redirect_stderr(io.StringIO()), self.assertRaises(SystemExit) as stop:
                q.main(arguments)
            self.assertEqual(stop.exception.code, 64)


class Tampering(Case):
    def test_every_field_edited(self):
        other = {
            "event_id": "019c3c1e-0000-7000-8000-0000000000ff",
            "timestamp": "2026-02-08T10:00:00.000009Z",
            "received_at": "2026-02-08T10:00:01.000001Z",
            "agent_id": "agent/2",
            "event_type": "tool.call",
            "severity": "warn",
            "source_id": "source",
            "compliance_tag": "other",
            "pii_types": ["email"],
            "redaction_count": 1,
            "redaction_policy": "ef" * 32,
            "salt": "ff" * 16,
            "payload": '{"n":9}',
            "metadata": '{"a":1}',
            "hash": "12" * 32,
        }
        self.assertEqual(other.keys() | {"kind", "sequence", "prev_hash", "content_digest"}, A[0].keys())
        for name, value in other.items():
            with self.subTest(name):
                self.expect("hash", self.edited(2, **{name: value}), line=3, session_id="run 1", sequence=0)
        self.expect("sequence", self.edited(3, sequence=2), line=4, session_id="run 1", sequence=2)
        self.expect("prev_hash", self.edited(3, prev_hash="0" * 64), line=4, sequence=1)
        self.expect("prev_hash", self.edited(2, prev_hash=A[0]["hash"]), line=3, sequence=0)
        self.expect("hash", self.edited_erased(content_digest="ce" * 32), line=5, sequence=2)

    def test_erased(self):
        self.valid(buried())
        self.valid(buried({**SAID, "token_id": None, "reason": "\u00e9" * 512}))
        incomplete = self.expect("tombstone_not_covered", ERASED, "INCOMPLETE")
        self.assertIsNone(incomplete["line"])
        self.expect("no_key", ERASED, "INCOMPLETE", key=False)
        self.expect("tombstone_not_covered", buried(session_id="_erased/x"), "INCOMPLETE")
        for said in (
            {**SAID, "event_id": GONE[1]["event_id"]},
            {**SAID, "session_id": "run 2"},
            {**SAID, "sequence": 1},
            {**SAID, "sequence": 2.0},
            {**SAID, "hash": GONE[1]["hash"]},
            {**SAID, "hash": GONE[2]["hash"].upper()},
            {**SAID, "content_digest": "ce" * 32},
            {**SAID, "reason": "\u00e9" * 513},
            {**SAID, "reason": 1},
            {**SAID, "token_id": 1},
            {**SAID, "more": 1},
            {name: value for name, value in SAID.items() if name != "reason"},
            [SAID],
        ):
            with self.subTest(said):
                self.expect("erased", buried(said), line=None, session_id="run 1", sequence=2)
        self.expect("erased", buried(event_type="quipu.erase"), sequence=2)
        self.expect("erased", buried(before=({},)), sequence=2)
        gone = {"payload": None, "salt": None, "metadata": None, "content_digest": "ab" * 32}
        self.expect("erased", buried(**gone), session_id="run 1", sequence=2)

    def test_every_field_edited_and_rehashed(self):
        event = make_event("run 1", 1, A[0]["hash"], severity="error")
        records = list(RECORDS)
        records[3] = event
        self.expect("prev_hash", records, line=5, sequence=2)
        records = list(RECORDS)
        records[5] = make_event("run 1", 3, A[2]["hash"], severity="error")
        self.expect("head", records, line=7, session_id="run 1", sequence=None)

    def test_payload_spelled_otherwise(self):
        for payload in ('{"n":0,"v":1,"t":"\\u0041\u00e9"}', '{"n":0,"v":1.0,"t":"A\u00e9"}'):
            self.expect("hash", self.edited(2, payload=payload))

    def test_order_of_checks_within_a_line(self):
        changes = {"hash": "1" * 64}
        self.expect("hash", self.edited(3, **changes))
        changes["prev_hash"] = "2" * 64
        self.expect("prev_hash", self.edited(3, **changes))
        changes["sequence"] = 7
        self.expect("sequence", self.edited(3, **changes))
        changes["severity"] = "loud"
        self.expect("syntax", self.edited(3, **changes))

    def test_dropped(self):
        for index, code in enumerate(
            ["syntax", "syntax", "sequence", "sequence", "sequence", "head", "syntax",
             "syntax", "sequence", "head", "syntax", "truncated"]
        ):  # fmt: skip
            with self.subTest(index=index):
                self.expect(code, RECORDS[:index] + RECORDS[index + 1 :])

    def test_duplicated(self):
        for index, code in enumerate(
            ["syntax", "syntax", "sequence", "sequence", "sequence", "sequence", "syntax",
             "syntax", "sequence", "sequence", "syntax", "truncated"]
        ):  # fmt: skip
            with self.subTest(index=index):
                self.expect(code, RECORDS[: index + 1] + RECORDS[index:], line=index + 2)

    def test_swapped(self):
        for index in range(END):
            records = list(RECORDS)
            records[index], records[index + 1] = records[index + 1], records[index]
            with self.subTest(index=index):
                self.expect(
                    "sequence" if index in (2, 3, 4, 8) else "head" if index in (5, 9) else "syntax",
                    records,
                )

    def test_inserted(self):
        for index in range(1, END + 1):
            stray = make_event("run 1", 1, A[0]["hash"], agent_id="stranger")
            result = self.run_verifier(RECORDS[:index] + [stray] + RECORDS[index:])
            self.assertEqual(result["verdict"], "INVALID")
        stray = make_event("run 1", 4, A[3]["hash"])
        self.expect("head", RECORDS[:HEAD_A] + [stray] + RECORDS[HEAD_A:])

    def test_tail_cut_with_head_kept(self):
        records = RECORDS[:5] + RECORDS[6:END] + [{"kind": "end", "sessions": 2, "events": 5}]
        self.expect("head", records, line=6, session_id="run 1")

    def test_tail_cut_and_older_head(self):
        older = head("run 1", A[2])
        self.expect("head", RECORDS[:HEAD_A] + [older] + RECORDS[HEAD_A + 1 :])
        cut = RECORDS[:5] + [older] + RECORDS[SESSION_B:END]
        cut.append({"kind": "end", "sessions": 2, "events": 5})
        self.valid(cut)
        self.expect("receipt", cut, receipts=[receipt("run 1", A[3])], session_id="run 1", sequence=3)

    def test_event_of_another_session(self):
        self.expect("hash", RECORDS[: SESSION_B + 1] + A[:2] + [head("lauf \u00fc", A[1]), RECORDS[END]])

    def test_session_or_tenant_renamed(self):
        self.expect("hash", self.edited(1, session_id="run 2"), line=3)
        self.expect("hash", self.edited(0, tenant="other"), line=3)

    def test_session_moved(self):
        moved = [RECORDS[0], *RECORDS[SESSION_B:END], *RECORDS[1:SESSION_B], RECORDS[END]]
        self.valid(moved)

    def test_session_twice(self):
        self.expect("syntax", RECORDS[:END] + RECORDS[SESSION_B:END] + [RECORDS[END]], line=12)

    def test_truncated_at_every_line(self):
        for count in range(len(LINES)):
            self.expect("truncated", b"".join(LINES[:count]), line=count + 1)

    def test_truncated_within_lines(self):
        for number, line in enumerate(LINES):
            for cut in {1, 2, len(line) // 2, len(line) - 2, len(line) - 1}:
                self.expect("truncated", b"".join(LINES[:number]) + line[:cut], line=number + 1)

    def test_empty_file(self):
        self.expect("truncated", b"", line=1)
        self.expect("truncated", b"", key=None)

    def test_something_after_the_end(self):
        for extra in (b"\n", b" ", b"{}\n", LINES[END], LINES[1], b"\xff", b"\n" * 10):
            self.expect("truncated", b"".join(LINES) + extra, line=END + 2)

    def test_counts(self):
        for sessions, events in ((1, 6), (3, 6), (2, 5), (2, 7), (0, 0)):
            self.expect("count", self.edited(END, sessions=sessions, events=events), line=12)
        for value in (True, 2.0, "2", None, -1, 2**63, 10**30, [], {}):
            self.expect("syntax", self.edited(END, sessions=value))
        for text in ("2e0", "02", "-0", "2.0", "NaN", "Infinity", "1" * 5000, "+2"):
            self.expect("syntax", self.replaced(END, '{"kind":"end","sessions":%s,"events":6}\n' % text))

    def test_empty(self):
        session = {"kind": "session", "session_id": "empty"}
        for at in (1, SESSION_B):
            self.expect("empty", RECORDS[:at] + [session] + RECORDS[at:], line=at + 2)
        end = {"kind": "end", "sessions": 3, "events": 6}
        self.expect("empty", RECORDS[:END] + [session, end])
        self.expect("empty", RECORDS[:END] + [session, RECORDS[HEAD_B], end])
        self.expect("empty", [RECORDS[0], {"kind": "end", "sessions": 0, "events": 0}])
        self.expect("count", [RECORDS[0], {"kind": "end", "sessions": 0, "events": 1}])


class Keys(Case):
    def test_pinned_key(self):
        for content in (OTHER_LOG.vkey, RECEIPT.vkey):
            self.expect("key", RECORDS, key=self.file("other", content), line=1)
        for content in (LOG.vkey, LOG.vkey + "\r\n", "\n \t" + LOG.vkey + " \n"):
            self.valid(RECORDS, key=self.file("other", content))

    def test_a_key_file_without_a_key(self):
        two, long = f"{LOG.vkey}\n{LOG.vkey}", LOG.vkey + " " * 4096
        for content in ("", "x", b"\xff\xfe", LOG.vkey[1:], two, long, "\u00a0" + LOG.vkey):
            self.incomplete("unreadable", RECORDS, key=self.file("other", content))
            self.expect("hash", self.edited(3, severity="warn"), key=self.file("other", content))

    def test_log_key(self):
        name, key_id, data = LOG.vkey.split("+", 2)
        small = b"\x01" + (1).to_bytes(32, "little")
        small_id = hashlib.sha256(name.encode() + b"\n" + small).hexdigest()[:8]
        for key in (
            "",
            name,
            f"{name}+00000000+{data}",
            f"{name}+{key_id.upper()}+{data}",
            f"{name}+{key_id}+{data[:-1]}",
            f"{name}+{key_id}+{data}=",
            f"{name}+{key_id}+{data}\n",
            f"{name}+{small_id}+{base64.b64encode(small).decode()}",
            Signer(f"{DEPLOYMENT}/_logs", "log").vkey,
            Signer("other/_log", "log").vkey,
        ):
            self.expect("key", self.edited(0, log_key=key), key=None, line=1)
        self.expect("syntax", self.edited(0, log_key=None))

    def test_wholly_other_log_key(self):
        changes = {"log_key": OTHER_LOG.vkey, "certificates": [certificate(OTHER_LOG)]}
        self.incomplete("no_key", self.edited(0, **changes), key=None)
        self.expect("key", self.edited(0, **changes))

    def test_certificates(self):
        good = certificate()
        text = good[: good.rfind("\n\n") + 1]
        for note in (
            "",
            text,
            certificate(signer=OTHER_LOG),
            certificate(signer=RECEIPT),
            certificate(deployment="other"),
            certificate(purpose="log"),
            certificate(key=LOG),
            certificate(key=Signer("other/_receipt", "receipt")),
            certificate(time="0" + str(TIME)),
            certificate(time=q.TIME_MAX + 1),
            certificate(time="-0"),
            LOG.note(text.replace("quipu.key.v1", "quipu.key.v2")),
            LOG.note(text + "more\n"),
            LOG.note(text.replace("\n", "\r\n")),
            good.replace("\u2014", "-"),
            good + "\n",
            good[:-1],
            good + OTHER_LOG.line(text).replace(OTHER_LOG.name, "")[2:],
            text + "\n" + LOG.line("something else\n"),
        ):
            with self.subTest(note=note):
                self.expect("key", self.edited(0, certificates=[note]), line=1)
                self.expect("key", self.edited(0, certificates=[good, note]), line=1)
        self.valid(self.edited(0, certificates=[good, good]))
        self.valid(self.edited(0, certificates=[good + OTHER_LOG.line("passed over\n")]))
        for value in ([], None, good, [None], [[good]], {"a": good}):
            self.expect("syntax", self.edited(0, certificates=value), line=1)

    def test_heads(self):
        last = A[-1]
        text = f"quipu.head.v1\n{TENANT}\nrun 1\n3\n{last['hash']}\n{TIME}\n"
        for note in (
            "",
            text,
            head("run 1", last, signer=OTHER_RECEIPT)["note"],
            head("run 1", last, signer=LOG)["note"],
            head("run 1", last, tenant="other")["note"],
            head("run 1", last, time="1.0")["note"],
            head("lauf \u00fc", last)["note"],
            head("run 1", A[0])["note"],
            head("run 1", {**last, "sequence": 4})["note"],
            head("run 1", {**last, "sequence": "03"})["note"],
            head("run 1", {**last, "hash": last["hash"].upper()})["note"],
            head("run 1", {**last, "hash": "12" * 32})["note"],
            receipt("run 1", last)["note"],
            RECEIPT.note(text + "\n"),
            RECEIPT.note(text) + RECEIPT.line("other\n"),
            RECEIPT.note(text) + OTHER_RECEIPT.line(text) * 16,
        ):
            with self.subTest(note=note):
                self.expect("head", self.edited(HEAD_A, note=note), line=7, session_id="run 1")
        self.valid(self.edited(HEAD_A, note=RECEIPT.note(text) + OTHER_RECEIPT.line("x\n") * 15))
        # A head is not the log key's to sign: like a stranger's, its signature is passed over.
        self.valid(self.edited(HEAD_A, note=RECEIPT.note(text) + LOG.line("other\n")))
        for value in (None, 1, [], ["a"]):
            self.expect("syntax", self.edited(HEAD_A, note=value))


class Syntax(Case):
    def test_every_member_missing_or_null_or_extra(self):
        for index in (0, 1, 2, HEAD_A, END):
            for name in RECORDS[index]:
                records = copy.deepcopy(RECORDS)
                del records[index][name]
                self.expect("syntax", records, line=index + 1)
                if name not in ("source_id", "redaction_policy", "content_digest"):
                    self.expect("syntax", self.edited(index, **{name: None}), line=index + 1)
                for value in (True, 1.5, [[]], {"a": 1}):
                    self.expect("syntax", self.edited(index, **{name: value}), line=index + 1)
            self.expect("syntax", self.edited(index, more=1), line=index + 1)

    def test_duplicate_members(self):
        for index in (0, 1, 2, HEAD_A, END):
            text = LINES[index].decode()
            for name in RECORDS[index]:
                first = f'{{{json.dumps(name)}: {json.dumps(RECORDS[index][name])}, '
                self.expect("syntax", self.replaced(index, first + text[1:]), line=index + 1)
                escaped = first.replace(f'"{name}"', '"\\u%04x%s"' % (ord(name[0]), name[1:]))
                self.expect("syntax", self.replaced(index, escaped + text[1:]), line=index + 1)

    def test_lines(self):
        good = LINES[3].decode()
        for raw in (
            "\n", "{}\n", "[]\n", "null\n", "1\n", '"a"\n', "{\n", good[:-2] + "\n",
            " " + good, good[:-1] + " \n", good[:-1] + "\r\n", "\ufeff" + good,
            good[:-1] + good, good[:-2] + ",}\n", good.replace('": ', '":\n', 1),
            good.replace('"severity": "info"', '"severity": info'),
            good.replace('"severity": "info"', '"severity": \'info\''),
            good.replace('"agent/1"', '"agent\t1"'), good.replace('"agent/1"', '"\\ud800"'),
            good.replace('"agent/1"', '"\\udc00\\ud800"'), good.replace('"agent/1"', '"\\x41"'),
            good.replace('"kind": "event"', '"kind": "Event"'),
            good.replace('"kind": "event"', '"kind": ["event"]'),
            good.replace('"redaction_count": 3', '"redaction_count": NaN'),
            good.replace('"redaction_count": 3', '"redaction_count": 3.0'),
            good.replace('"redaction_count": 3', '"redaction_count": ' + "9" * 10000),
            "[" * 100000 + "\n", '{"a":' * 100000 + "\n",
        ):  # fmt: skip
            with self.subTest(raw=raw[:60]):
                self.assertNotEqual(raw, good)
                self.expect("syntax", self.replaced(3, raw))
        for raw in (b"\xff\n", b"\xed\xa0\x80\n", LINES[3].replace(b"agent/1", b"agent\xc0\xaf")):
            self.expect("syntax", self.replaced(3, raw), line=4)

    def test_line_limit(self):
        padding = b" " * (q.LINE_LIMIT - len(LINES[3]))
        self.valid(self.replaced(3, LINES[3].replace(b"{", b"{" + padding, 1)))
        self.expect("syntax", self.replaced(3, LINES[3].replace(b"{", b"{ " + padding, 1)), line=4)
        self.expect("syntax", self.replaced(3, b"x" * (3 * q.LINE_LIMIT)), line=4)

    def test_fields_of_an_event(self):
        bad = {
            "sequence": (-1, 2**63, "0", 0.0, False),
            "event_id": (
                "", "019c3c1e-0000-4000-8000-000000000000", "019c3c1e-0000-7000-c000-000000000000",
                "019C3C1E-0000-7000-8000-000000000000", "019c3c1e000070008000000000000000",
                "019c3c1e-0000-7000-8000-000000000000\n",
            ),
            "timestamp": (
                "", "2026-02-08T10:00:00Z", "2026-02-08T10:00:00.000Z", "2026-02-08T10:00:00.0000000Z",
                "2026-02-08t10:00:00.000000Z", "2026-02-08T10:00:00.000000z", "2026-02-08 10:00:00.000000Z",
                "2026-02-08T10:00:00.000000+00:00", "2026-02-30T10:00:00.000000Z",
                "2026-02-08T24:00:00.000000Z", "2026-06-30T23:59:60.000000Z", "0000-01-01T00:00:00.000000Z",
                "2026-02-08T10:00:00.000000Z\n", "\u0662026-02-08T10:00:00.000000Z", TIME,
            ),
            "agent_id": ("", "a" * 257, "\u00e9" * 129, "a\nb", "a\x00", "\x7f", "\x85", 1),
            "event_type": (
                "", "A", "1a", "_a", "a.", "a..b", ".a", "a-b", "a b", "a" * 129, "a\n", "\u00e9",
                "a" + "_a" * 63 + "!",
            ),
            "severity": ("", "Info", "warning", "fatal", ["info"]),
            "source_id": ("", "s" * 257, "\x1f"),
            "compliance_tag": ("", "t" * 65, "\u009f"),
            "pii_types": (
                ["b", "a"], ["a", "a"], [""], ["A"], ["a" * 33], ["a,b"], [1], "a", {},
                [f"n{i:02}" for i in range(33)], ["a\n"],
            ),
            "redaction_count": (-1, 2**32, "0", True),
            "redaction_policy": ("", "ab" * 31, "AB" * 32, "ab" * 33, "zz" * 32),
            "salt": ("", "00" * 15, "00" * 17, "AA" * 16),
            "payload": (
                "", " ", "{ }", "[1, 2]", '{"a":1}\n', '{"a":1,"a":2}', '{"a":1,"\\u0061":2}', "nul",
                "1 ", "01", "1.", "'a'", '"\\ud800"', "[" * 129 + "]" * 129, '"' + "a" * 1048575 + '"',
            ),
            "metadata": ("", "[]", "null", '"a"', "{} ", '{"a":"' + "b" * 65529 + '"}'),
            "content_digest": ("", "cd" * 32),
            "prev_hash": ("", "0" * 63, "0" * 65, A[0]["hash"].upper()),
            "hash": ("", None, A[0]["hash"].upper(), A[0]["hash"] + "\n"),
        }  # fmt: skip
        bad["received_at"] = bad["timestamp"]
        self.assertEqual(bad.keys() | {"kind"}, A[0].keys())
        for name, values in bad.items():
            for value in values:
                with self.subTest(name=name, value=str(value)[:40]):
                    self.expect("syntax", self.edited(2, **{name: value}), line=3, session_id="run 1")
        for changes in ({"salt": "00" * 16}, {"payload": "1"}, {"metadata": "{}"}, {"content_digest": None}):
            self.expect("syntax", self.edited_erased(**changes), line=5)

    def test_widest_fields(self):
        self.one_event(
            agent_id="\u00e9" * 128,
            event_type="a" + "_.a" * 42 + "b",
            source_id="s" * 256,
            compliance_tag="t" * 64,
            pii_types=[f"n{i:02}" for i in range(31)] + ["z" * 32],
            redaction_count=2**32 - 1,
            payload='"' + "a" * 1048574 + '"',
            metadata='{"a":"' + "b" * 65528 + '"}',
        )
        self.one_event(payload="[" * 128 + "]" * 128, metadata='{"\\ud83d\\ude00":-0.0E+00}', event_type="a_")

    def one_event(self, **changes):
        event = make_event("s", 0, "0" * 64, **changes)
        session = {"kind": "session", "session_id": "s"}
        end = {"kind": "end", "sessions": 1, "events": 1}
        self.valid([first_record(), session, event, head("s", event), end])

    def test_times(self):
        self.assertEqual(q.microseconds("0001-01-01T00:00:00.000000Z"), q.TIME_MIN)
        self.assertEqual(q.microseconds("9999-12-31T23:59:59.999999Z"), q.TIME_MAX)
        self.assertEqual(q.microseconds("1969-12-31T23:59:59.999999Z"), -1)
        self.assertEqual(q.microseconds(TIME_TEXT), TIME)

    def test_first_record(self):
        for changes in (
            {"format": "quipu.bundle.v2"}, {"deployment": ""}, {"deployment": "A"},
            {"deployment": "a" * 101}, {"tenant": "a.b"}, {"tenant": "a" * 64}, {"tenant": "a\n"},
            {"created_at": "2026-02-08"}, {"kind": "end"},
        ):  # fmt: skip
            self.expect("syntax", self.edited(0, **changes), line=1)
        for value in ("", "a" * 257, "a\nb", 1, None):
            self.expect("syntax", self.edited(1, session_id=value), line=2)

    def test_hostile_bytes(self):
        source = random.Random(1)
        whole = b"".join(LINES)
        for _ in range(300):
            data = bytearray(whole)
            for _ in range(source.randint(1, 3)):
                at = source.randrange(len(data))
                choice = source.randrange(3)
                if choice == 0:
                    data[at] ^= 1 << source.randrange(8)
                elif choice == 1:
                    del data[at : at + source.randint(1, 40)]
                else:
                    data[at:at] = source.choice([b"\n", b'"', b"\\", b"{", b"[", b"\x00", b"1", b"null"])
            self.assertIn(self.run_verifier(bytes(data))["verdict"], ("VALID", "INVALID"))


class Receipts(Case):
    def test_forms(self):
        good = [receipt("run 1", event) for event in A] + [receipt("lauf \u00fc", B[0])]
        reply = {"ingested": 4, "events": [{"x": 1.5}], "receipts": good}
        self.valid(RECORDS, receipts=[reply, good, good[0], good[0]["note"]])
        self.valid(RECORDS, receipts=["\n " + json.dumps(good, indent=1) + "\n"])

    def test_hash_or_sequence_not_in_the_bundle(self):
        for event in ({"sequence": 4, "hash": A[3]["hash"]}, {"sequence": 1, "hash": A[2]["hash"]}):
            said = receipt("run 1", event)
            for form in (said, said["note"], [receipt("run 1", A[0]), said]):
                self.expect(
                    "receipt", RECORDS, receipts=[form],
                    session_id="run 1", sequence=event["sequence"], line=None,
                )  # fmt: skip

    def test_not_covered(self):
        absent = receipt("absent", A[0])
        foreign = receipt("run 1", A[0], tenant="other")
        for said in (absent, foreign):
            self.incomplete("receipt_not_covered", RECORDS, receipts=[said])
            self.incomplete("receipt_not_covered", RECORDS, receipts=[said, receipt("run 1", A[0])])
            self.incomplete("no_key", RECORDS, receipts=[said], key=None)
        wrong = receipt("run 1", {"sequence": 9, "hash": "12" * 32})
        self.expect("receipt", RECORDS, receipts=[absent, wrong])
        self.expect("receipt", RECORDS, receipts=[wrong], key=None)

    def test_the_bundle_comes_first(self):
        self.expect("hash", self.edited(3, severity="warn"), receipts=["rubbish"])

    def test_bad(self):
        good = receipt("run 1", A[1])
        for said in (
            "", "\n", "rubbish", b"\xff", "{", "[]", "{}", '{"receipts":[]}', '{"receipts":null}',
            "[1]", "[[]]", "[" * 100000, '{"receipts":' + "9" * 9999 + "}", "[NaN]",
            good["note"] + "\n", good["note"][:-1], head("run 1", A[1])["note"],
            {**good, "sequence": 2}, {**good, "sequence": True}, {**good, "sequence": 1.0},
            {**good, "hash": good["hash"].upper()}, {**good, "session_id": "run 2"},
            {**good, "time": "2026-02-08T10:00:00.000001Z"}, {**good, "time": TIME},
            {**good, "note": None}, {**good, "note": "x"}, {**good, "more": 1},
            {name: good[name] for name in good if name != "time"},
            receipt("run 1", A[1], signer=OTHER_RECEIPT), receipt("run 1", A[1], signer=LOG),
            receipt("absent", A[1], signer=OTHER_RECEIPT),
            json.dumps(good)[:-1] + ',"time":"' + TIME_TEXT + '"}',
            json.dumps(good) + json.dumps(good),
        ):  # fmt: skip
            with self.subTest(said=str(said)[:60]):
                self.expect("receipt", RECORDS, receipts=[said])
        self.expect("receipt", RECORDS, receipts=[b" " * (q.FILE_LIMIT + 1)])


class Logs(Case):
    """Rotations, checkpoint and proofs of a bundle."""

    # Of the log that the checkpoint is of, the events of the bundle are leaves 5 to 8 and 20, 21.
    ENTRIES = [sha(b"entry", bytes([number])) for number in range(37)]
    for at, event in zip((5, 6, 7, 8, 20, 21), A + B):
        ENTRIES[at] = bytes.fromhex(event["hash"])
    ROOT = mth(ENTRIES)

    def proof(self, first, count, leaf):
        hashes = [item.hex() for item in range_proof(0, 37, leaf, count, self.ENTRIES)]
        return {"kind": "proof", "first": first, "count": count, "leaf": leaf, "hashes": hashes}

    def bundle(self, *proofs, note=None, before=(), of_b=None, **first):
        """A bundle with these proofs for its first session."""
        said = {"kind": "checkpoint", "note": note or checkpoint(TENANT, 37, self.ROOT)}
        records = [first_record(**first), *before, said, *RECORDS[1:HEAD_A], *proofs, *RECORDS[HEAD_A:HEAD_B]]
        return [*records, *([self.proof(0, 2, 20)] if of_b is None else of_b), *RECORDS[HEAD_B:]]

    def test_valid(self):
        self.valid(self.bundle())
        self.valid(self.bundle(self.proof(0, 4, 5)))
        self.valid(self.bundle(self.proof(0, 1, 5), self.proof(1, 3, 6), of_b=[]))
        self.valid(self.bundle(self.proof(0, 1, 5), self.proof(3, 1, 8)))
        self.valid([*RECORDS[:1], {"kind": "checkpoint", "note": checkpoint(TENANT, 37, self.ROOT)}, *RECORDS[1:]])

    def test_proofs(self):
        good = self.proof(0, 4, 5)
        place = {"line": 8, "session_id": "run 1", "sequence": None}
        for bad in (
            self.proof(0, 4, 4), {**self.proof(0, 3, 5), "count": 4}, self.proof(1, 3, 5), self.proof(0, 5, 5),
            self.proof(3, 2, 8), self.proof(4, 1, 9), {**self.proof(0, 1, 5), "count": 0}, {**good, "hashes": []},
            {**good, "hashes": good["hashes"][::-1]}, {**good, "hashes": good["hashes"][:-1]},
            {**good, "hashes": [*good["hashes"], self.ROOT.hex()]}, {**good, "leaf": 2**63 - 1}, {**good, "leaf": 36},
            {**good, "first": 2**63 - 1}, {**good, "count": 2**63 - 1},
            {**good, "count": 0, "leaf": 0, "hashes": [self.ROOT.hex()]},
        ):  # fmt: skip
            with self.subTest(bad=bad):
                self.expect("proof", self.bundle(bad), **place)
        for two in ((good, good), (self.proof(1, 3, 6), self.proof(0, 1, 5)), (self.proof(0, 2, 5), self.proof(1, 2, 6))):
            self.expect("proof", self.bundle(*two), line=9, session_id="run 1")
        for changes in (
            {"first": -1}, {"first": "0"}, {"count": 1.0}, {"count": None}, {"leaf": True}, {"leaf": 2**63},
            {"hashes": None}, {"hashes": "ab"}, {"hashes": ["ab"]}, {"hashes": [None]}, {"more": 1},
            {"hashes": [item.upper() for item in good["hashes"]]},
        ):  # fmt: skip
            self.expect("syntax", self.bundle({**good, **changes}), **place)
        for name in good:
            self.expect("syntax", self.bundle({n: good[n] for n in good if n != name}), line=8)
        # The other session's events, and those of an edited bundle, are not the leaves.
        self.expect("proof", self.bundle(of_b=[self.proof(0, 2, 5)]), session_id="lauf \u00fc")
        self.expect("proof", [*RECORDS[:HEAD_A], good, *RECORDS[HEAD_A:]], line=7)

    def test_all_ranges_of_many_trees(self):
        events = make_session("s", 9)
        for before, after in ((0, 0), (1, 0), (3, 5), (7, 0), (0, 56)):
            entries = [bytes.fromhex(event["hash"]) for event in events]
            entries = [sha(b"b", bytes([n])) for n in range(before)] + entries + [sha(b"a", bytes([n])) for n in range(after)]
            said = {"kind": "checkpoint", "note": checkpoint(TENANT, len(entries), mth(entries))}
            for split in range(1, 9):
                proofs = [
                    {
                        "kind": "proof",
                        "first": first,
                        "count": count,
                        "leaf": before + first,
                        "hashes": [h.hex() for h in range_proof(0, len(entries), before + first, count, entries)],
                    }
                    for first, count in ((0, split), (split, 9 - split))
                ]
                start = [first_record(), said, {"kind": "session", "session_id": "s"}]
                end = [head("s", events[-1]), {"kind": "end", "sessions": 1, "events": 9}]
                self.valid([*start, *events, *proofs, *end])

    def test_order(self):
        good = self.bundle(self.proof(0, 4, 5))
        said, proof = good[1], good[7]
        for at, record, line in (
            (2, said, 3), (3, said, 4), (8, said, 9), (9, said, 10), (len(good) - 1, said, len(good)),
            (1, proof, 2), (2, proof, 3), (3, proof, 4), (9, proof, 10), (10, proof, 11),
            (0, said, 1), (0, proof, 1), (8, A[0], 9),
        ):  # fmt: skip
            with self.subTest(at=at, kind=record["kind"]):
                self.expect("syntax", good[:at] + [record] + good[at:], line=line)
        # A session, the end or an event where the head is due.
        self.expect("syntax", [*good[:8], *good[9:]], line=9)
        self.expect("syntax", [*good[:8], good[-1]], line=9)

    def test_checkpoint(self):
        def changed(tenant=TENANT, size=37, root=self.ROOT, *signers, **other):
            return checkpoint(tenant, size, root, *signers, **other)

        text = changed().split("\n\n")[0] + "\n"
        mine = renamed(LOG, f"{DEPLOYMENT}/{TENANT}")
        for bad in (
            "", "x", text, changed("other"), changed(TENANT, 37, self.ROOT, OTHER_LOG),
            changed(TENANT, 37, self.ROOT, RECEIPT), changed(deployment="other"), note(text, LOG), changed() + "x",
            note(text + "more\n", mine), note(text.replace("37", "037"), mine), note(text.replace("37", "-1"), mine),
            note(text.replace("37", "1e1"), mine), note(text[:-3] + "\n", mine), note("x\n" + text, mine),
            note(text.replace("\n37", " \n37"), mine), changed(root=bytes(31)), changed().replace("37", "38"),
            changed() + mine.line("other\n"), note(text.replace(f"/{TENANT}", ""), renamed(LOG, DEPLOYMENT)),
        ):  # fmt: skip
            with self.subTest(bad=bad):
                self.expect("checkpoint", self.bundle(note=bad or "\n"), line=2, session_id=None)
        self.expect("syntax", [*RECORDS[:1], {"kind": "checkpoint", "note": None}, *RECORDS[1:]], line=2)
        self.valid(self.bundle(note=changed() + OTHER_LOG.line("passed over\n")))
        self.expect("proof", self.bundle(self.proof(0, 4, 5), note=changed(root=bytes(32)), of_b=[]), line=8)
        self.expect("proof", self.bundle(self.proof(0, 4, 5), note=changed(size=31), of_b=[]), line=8)

    def test_rotations(self):
        def records(*notes):
            return [{"kind": "rotation", "note": item} for item in notes]

        one, two = rotation(OLDER, OLD, "acme 5"), rotation(OLD, LOG, "acme 36")
        for key in (LOG, OLD, OLDER):
            pin = self.file("pin", key.vkey)
            self.valid(self.bundle(before=records(one, two)), key=pin)
            self.valid(self.bundle(before=records(one, two), certificates=[certificate(key)]), key=pin)
        self.valid(self.bundle(before=records(one, two), certificates=[certificate(OLD), certificate(OLDER)]))
        self.incomplete("no_key", self.bundle(before=records(one, two)), key=None)
        self.expect("key", self.bundle(before=records(one, two)), key=self.file("pin", OTHER_LOG.vkey), line=1)
        self.expect("key", self.bundle(before=records(two)), key=self.file("pin", OLDER.vkey), line=1)
        self.expect("key", self.bundle(before=records(one, two), certificates=[certificate(OTHER_LOG)]), line=1)
        self.expect("key", self.bundle(before=records(one)), key=None, line=1)
        self.expect("key", self.bundle(before=records(two, one)), line=3)
        self.expect("key", self.bundle(before=records(two, two)), line=3)
        self.expect("key", self.bundle(before=records(one, rotation(OLD, LOG, "acme 4"))), line=3)
        for bad in ("x", rotation(OLD, LOG, signers=[LOG]), rotation(OLD, LOG, "acme 0x"), one + "\n"):
            self.expect("key", self.bundle(before=records(bad)), line=2)
        self.expect("syntax", self.bundle(before=[{"kind": "rotation", "note": 1}]), line=2)
        self.expect("syntax", self.bundle(before=[{"kind": "rotation"}]), line=2)
        # The checkpoint is signed by the key that held at its size.
        said = [checkpoint(TENANT, 37, self.ROOT, key) for key in (OLDER, OLD, LOG)]
        for end, good in ((36, 2), (37, 1), (38, 1)):
            chain = records(one, rotation(OLD, LOG, f"acme {end}"))
            for number, text in enumerate(said):
                content = self.bundle(before=chain, note=text)
                self.valid(content) if number == good else self.expect("checkpoint", content, line=4)
        self.expect("checkpoint", self.bundle(before=records(rotation(OLD, LOG)), note=said[1]), line=3)
        self.valid(self.bundle(before=records(rotation(OLD, LOG))))
        # Only right after the first line.
        good = self.bundle(before=records(two))
        for at in (3, 4, 5, 8, len(good) - 1):
            self.expect("syntax", good[:at] + records(two) + good[at:], line=at + 1)
        self.expect("syntax", records(two) + good, line=1)

    def test_the_first_line_is_held_against_the_keys_before_the_next_line(self):
        bad = first_record(certificates=[certificate(OTHER_LOG)])
        for after in (b"x\n", b"{}\n", b"", LINES[1][:-1], LINES[END]):
            content = encode([bad])[0] + after
            if after:
                self.expect("key", content, line=1)
            else:
                self.expect("truncated", content, line=2)

    def test_rollback(self):
        same, root = checkpoint(TENANT, 37, self.ROOT), bytes(32)
        content = self.bundle()
        self.valid(content, kept=[same, same])
        self.valid(self.bundle(note=same + OTHER_LOG.line("a witness\n")), kept=[same])
        for bad in (
            checkpoint(TENANT, 37, root), checkpoint(TENANT, 37, self.ROOT, OTHER_LOG), "", b"\xff", "x",
            b"x" * 1000001, checkpoint("other", 37, root, OTHER_LOG), checkpoint(TENANT, 36, root, RECEIPT),
            checkpoint(TENANT, 37, self.ROOT, deployment="other"), note(same.split("\n\n")[0] + "\n", LOG),
        ):  # fmt: skip
            with self.subTest(bad=bad[:80]):
                self.expect("rollback", content, kept=[same, bad], line=None, session_id=None)
                self.expect("rollback", content, kept=[bad], key=None)
        for other in (checkpoint(TENANT, 36, root), checkpoint(TENANT, 38, root), checkpoint("other", 37, root)):
            self.incomplete("checkpoint_not_covered", content, kept=[same, other])
            self.incomplete("no_key", content, kept=[other], key=None)
            self.expect("rollback", content, kept=[other, checkpoint(TENANT, 37, root)])
        self.incomplete("checkpoint_not_covered", RECORDS, kept=[same])
        self.expect("rollback", RECORDS, kept=["x"])
        absent = receipt("absent", A[0])
        self.incomplete("checkpoint_not_covered", RECORDS, kept=[same], receipts=[absent])
        wrong = receipt("run 1", {"sequence": 1, "hash": "12" * 32})
        self.expect("receipt", RECORDS, kept=[same], receipts=[wrong])
        self.expect("rollback", RECORDS, kept=["x"], receipts=[wrong])
        self.expect("hash", self.edited(3, severity="warn"), kept=["x"])
        # Any key of the chain may have signed what was kept.
        turned = self.bundle(before=[{"kind": "rotation", "note": rotation(OLD, LOG, "acme 1")}])
        self.valid(turned, kept=[checkpoint(TENANT, 37, self.ROOT, OLD)])
        self.expect("rollback", turned, kept=[checkpoint(TENANT, 37, self.ROOT, OLDER)])
        result = q.verify(self.file("good", b"".join(LINES)), self.key, [], [os.path.join(self.directory, "none")])
        self.assertEqual((result["verdict"], result["code"]), ("INCOMPLETE", "unreadable"))


class Proofs(Case):
    ENTRIES = Logs.ENTRIES

    def text(self, index=5, size=37, extra="", note=None, first="c2sp.org/tlog-proof@v1"):
        hashes = [base64.b64encode(item).decode() + "\n" for item in path(index, self.ENTRIES[:size])]
        note = note or checkpoint(TENANT, size, mth(self.ENTRIES[:size]))
        return f"{first}\n{extra}index {index}\n{''.join(hashes)}\n{note}"

    def check(self, verdict, code, text, index=5, key=LOG):
        pin = self.file("pin", key.vkey) if key else None
        result = q.verify_proof(self.file("proof", text), self.ENTRIES[index].hex(), pin)
        self.assertEqual((result["verdict"], result["code"]), (verdict, code), result)
        self.assertTrue(q.describe_proof(result).startswith(verdict))
        return result

    def test_every_leaf(self):
        for size in (1, 2, 3, 8, 37):
            for index in range(size):
                result = self.check("VALID", None, self.text(index, size), index)
                self.assertEqual((result["tenant"], result["index"], result["tree_size"]), (TENANT, index, size))

    def test_extra_and_witnesses(self):
        self.check("VALID", None, self.text(extra="extra AAEC\n"))
        self.check("VALID", None, self.text(extra="extra \n"))
        self.check("VALID", None, self.text() + OTHER_LOG.line("a witness\n"))

    def test_bad(self):
        good = self.text()
        lines = good.split("\n")
        for bad in (
            "", "x", good.replace("@v1", "@v2"), good.replace("index 5", "index 4"), good.replace("index 5", "index 05"),
            good.replace("index 5", "index -5"), good.replace("index 5", "index 37"), good.replace("index 5", "Index 5"),
            good.replace("index 5\n", ""), "\n".join(lines[:2] + lines[3:]), "\n".join([*lines[:3], *lines[2:]]),
            good.replace("\n", "\r\n"), " " + good, "\n" + good, good.replace(lines[2], lines[2][:-1]),
            good.replace(lines[2], lines[2][:-4]), good.replace(lines[2], lines[3]),
            self.text(extra="extra x\n"), self.text(extra="extra AAEC\nextra AAEC\n"), self.text(extra="more AAEC\n"),
            self.text(6), b"\xff", b"x" * (q.FILE_LIMIT + 1),
        ):  # fmt: skip
            with self.subTest(bad=bad[:60]):
                self.check("INVALID", "proof", bad)
        self.check("INVALID", "proof", good, index=6)
        for note in (
            checkpoint(TENANT, 37, Logs.ROOT, OLD), checkpoint(TENANT, 37, Logs.ROOT, deployment="other"),
            checkpoint(TENANT, 37, Logs.ROOT)[:-1], checkpoint(TENANT, 37, Logs.ROOT).split("\n\n")[0], "x",
        ):  # fmt: skip
            self.check("INVALID", "checkpoint", self.text(note=note))
        self.check("INVALID", "checkpoint", good, key=RECEIPT)
        self.check("INVALID", "proof", self.text(note=checkpoint(TENANT, 31, Logs.ROOT)))
        self.check("INVALID", "proof", self.text(note=checkpoint(TENANT, 37, bytes(32))))

    def test_incomplete(self):
        good = self.text()
        self.check("INCOMPLETE", "no_key", good, key=None)
        self.check("INVALID", "proof", good, key=None, index=6)
        digest = self.ENTRIES[5].hex()
        for proof, key in ((os.path.join(self.directory, "none"), self.key), (self.file("proof", good), self.directory)):
            result = q.verify_proof(proof, digest, key)
            self.assertEqual((result["verdict"], result["code"]), ("INCOMPLETE", "unreadable"))

    def test_command_line(self):
        proof, digest = self.file("proof", self.text()), self.ENTRIES[5].hex()
        arguments = ["--proof", proof, "--key", self.key, "--hash"]
        for value, status, start in ((digest, 0, "VALID leaf 5 of acme, tree size 37"), ("00" * 32, 1, "INVALID proof")):
            with contextlib.redirect_stdout(io.StringIO()) as out:
                self.assertEqual(q.main([*arguments, value]), status)
            self.assertTrue(out.getvalue().startswith(start), out.getvalue())
        with contextlib.redirect_stdout(io.StringIO()) as out:
            self.assertEqual(q.main([*arguments, digest, "--json"]), 0)
        self.assertEqual(json.loads(out.getvalue())["root"], Logs.ROOT.hex())
        bundle = self.file("bundle", b"".join(LINES))
        for wrong in (
            ["--proof", proof], ["--hash", digest], [*arguments, "x"], [*arguments, digest, bundle],
            [*arguments, digest, "--receipt", proof], [bundle, "--hash", digest], [*arguments, digest, "--checkpoint", "x"],
            ["--vectors", proof, "--checkpoint", proof], ["--vectors", proof, "--proof", proof, "--hash", digest],
        ):  # fmt: skip
            with contextlib.redirect_stderr(io.StringIO()), self.assertRaises(SystemExit) as stop:
                q.main(wrong)
            self.assertEqual(stop.exception.code, 64, wrong)


class Trees(unittest.TestCase):
    ENTRIES = [sha(bytes([number])) for number in range(70)]

    def test_roots(self):
        tree = q.Tree()
        for size in range(71):
            self.assertEqual(tree.root(), mth(self.ENTRIES[:size]))
            if size < 70:
                tree.push(q.leaf_hash(self.ENTRIES[size]))

    def test_ranges(self):
        mth_of = functools.lru_cache(None)(lambda low, high: mth(self.ENTRIES[low:high]))

        def proof(low, high, first, count):
            if high <= first or low >= first + count:
                return [mth_of(low, high)]
            if high - low == 1:
                return []
            k = 1 << (high - low - 1).bit_length() - 1
            return proof(low, low + k, first, count) + proof(low + k, high, first, count)

        self.assertEqual(proof(0, 70, 3, 9), range_proof(0, 70, 3, 9, self.ENTRIES))
        sizes = [*range(1, 20), 31, 32, 33, 63, 64, 65, 70]
        for size in sizes:
            root = mth_of(0, size)
            for first in range(size):
                for count in range(1, size - first + 1):
                    hashes = proof(0, size, first, count)
                    entry = lambda index: self.ENTRIES[first + index]  # noqa: B023, E731
                    self.assertTrue(q.verify_range(first, count, entry, size, hashes, root))
                    if (first + count + size) % 7:
                        continue
                    self.assertFalse(q.verify_range(first, count, entry, size, [*hashes, root], root))
                    for at in range(len(hashes)):
                        short = hashes[:at] + hashes[at + 1 :]
                        self.assertFalse(q.verify_range(first, count, entry, size, short, root))
                        other = [*hashes[:at], bytes(32), *hashes[at + 1 :]]
                        self.assertFalse(q.verify_range(first, count, entry, size, other, root))
                    wrong = lambda index: self.ENTRIES[first + index + 1 - 2 * (first + index == 69)]  # noqa: B023, E731
                    self.assertFalse(q.verify_range(first, count, wrong, size, hashes, root))
        entry = self.ENTRIES.__getitem__
        self.assertFalse(q.verify_range(0, 0, entry, 5, [mth_of(0, 5)], mth_of(0, 5)))
        self.assertFalse(q.verify_range(4, 2, lambda i: self.ENTRIES[4 + i], 5, [mth_of(0, 4)], mth_of(0, 5)))
        self.assertFalse(q.verify_range(0, 1, entry, 0, [], mth([])))

    def test_inclusion(self):
        for size in range(1, 71):
            root = mth(self.ENTRIES[:size])
            for index in range(size):
                hashes = path(index, self.ENTRIES[:size])
                leaf = q.leaf_hash(self.ENTRIES[index])
                self.assertTrue(q.verify_inclusion(leaf, index, size, hashes, root))
                self.assertFalse(q.verify_inclusion(leaf, index, size, [*hashes, root], root))
                self.assertFalse(q.verify_inclusion(leaf, index, size, hashes[:-1], root) and size > 1)
                self.assertFalse(q.verify_inclusion(leaf, index + size, size, hashes, root))
                self.assertFalse(q.verify_inclusion(q.leaf_hash(bytes(32)), index, size, hashes, root))
                for other in range(size):
                    if other != index:
                        self.assertFalse(q.verify_inclusion(leaf, other, size, hashes, root))


class Json(unittest.TestCase):
    GOOD = (
        "0", "-0", "-1", "1.0", "1e5", "1E+05", "-0.0e-0", "1" * 10000, "true", "false", "null", '""',
        '"a b"', '"\\"\\\\\\/\\b\\f\\n\\r\\t\\u0000\\uD83D\\uDE00\\uE000\\ud7ff"', '"\x7f\u2028\ufeff\U0001f600"',
        "[]", "{}", "[[],{},[1,2]]", '{"a":1,"b":{"a":1}}', '{"":1,"a":2,"A":3}',
        '[{"a":1},{"a":2}]', "[" * 128 + "]" * 128, '{"a":' * 127 + "[]" + "}" * 127,
        '{"\u00e9":1,"e\u0301":2}',
    )  # fmt: skip
    BAD = (
        "", " ", " 1", "1 ", "1\n", "[1, 2]", '{"a": 1}', "[ ]", "01", "-", "+1", "1.", ".5", "1e", "1e+",
        "0x1", "--1", "1_0", "NaN", "Infinity", "-Infinity", "True", "nul", "nulll", "truefalse", "1true",
        '"', '"a', 'a"', '"\n"', '"\t"', '"\x00"', '"\x1f"', '"\\a"', '"\\u12"', '"\\u123g"', '"\\u 123"',
        '"\\u+123"', '"\\ud800"', '"\\ud800a"', '"\\udc00"', '"\\ud800\\ud800"', '"\\udc00\\ud800"', '"\ud800"',
        '"\\U0041"', "[", "]", "{", "}", "[1", "[1,", "[1,]", "[,1]", "[,]", "[1 2]", "[1]]", "[}", "{]", '{"a"',
        '{"a":', '{"a":1', '{"a":1,', '{"a":1,}', '{,"a":1}', '{"a"}', '{"a",1}', "{1:2}", "{a:1}", "{null:1}",
        '{"a":1:2}', "[1:2]", "1,2", "1:2", ",", ":", '["a":1]', '{"a":1"b":2}', '"a""b"',
        '{"a":1,"a":1}', '{"a":1,"\\u0061":1}', '{"\\ud83d\\ude00":1,"\U0001f600":2}', '{"b":{"a":1,"a":2}}',
        "[" * 129 + "]" * 129, '{"a":' * 128 + "[]" + "}" * 128, "[" * 100000, "\ufeff1", "1\x00",
        "//", "/**/1", "\u0661", "1\u00a0", '{"\\ud800":1}',
    )  # fmt: skip

    def test_good(self):
        for text in self.GOOD:
            with self.subTest(text=text[:40]):
                q.check_json(text, compact=True)

    def test_bad(self):
        for text in self.BAD:
            with self.subTest(text=text[:40]), self.assertRaises(ValueError):
                q.check_json(text, compact=True)

    def test_agrees_with_the_standard_parser(self):
        source = random.Random(2)
        pieces = ["[", "]", "{", "}", ",", ":", '"a"', '"b"', "1", "-0", "1.5e3", "null", "true", '"\\n"', "0"]
        accepted = 0
        for _ in range(20000):
            text = "".join(source.choice(pieces) for _ in range(source.randint(1, 7)))
            try:
                json.loads(text, object_pairs_hook=q.refuse_twice)
                expected = True
            except ValueError:
                expected = False
            try:
                q.check_json(text, compact=True)
                found = True
            except ValueError:
                found = False
            self.assertEqual(found, expected, text)
            accepted += found
        self.assertGreater(accepted, 100)

    def test_long_strings_are_no_burden(self):
        for text in ('"' + "\\n" * 500000, '"' + "a" * 1000000, '"' + "\\u0041a" * 100000 + '\\u00"'):
            with self.assertRaises(ValueError):
                q.check_json(text, compact=True)
        q.check_json('"' + "\\ud83d\\ude00" * 80000 + '"', compact=True)


class Signatures(unittest.TestCase):
    # RFC 8032, section 7.1, tests 1 to 3: secret key, public key, message, signature.
    RFC8032 = (
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
            "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        ),
        (
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
            "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        ),
        (
            "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
            "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
        ),
    )

    def test_rfc8032(self):
        for vector in self.RFC8032:
            secret, public, message, signature = map(bytes.fromhex, vector)
            self.assertEqual(public_key(secret), public)
            self.assertEqual(sign(secret, message), signature)
            self.assertTrue(q.verify_signature(public, message, signature))
            self.assertFalse(q.verify_signature(public, message + b"\0", signature))
            for at in range(0, 64, 7):
                broken = bytearray(signature)
                broken[at] ^= 1
                self.assertFalse(q.verify_signature(public, message, bytes(broken)))
            self.assertFalse(q.verify_signature(public, message, signature[:63]))
            self.assertFalse(q.verify_signature(public[:31], message, signature))

    def test_s_out_of_range(self):
        _, public, message, signature = map(bytes.fromhex, self.RFC8032[1])
        s = int.from_bytes(signature[32:], "little") + q.L
        self.assertFalse(q.verify_signature(public, message, signature[:32] + s.to_bytes(32, "little")))

    def test_encodings_of_points(self):
        for y in (q.P, q.P + 1, 2**255 - 1):
            self.assertIsNone(q.decode_point(y.to_bytes(32, "little")))
        self.assertIsNone(q.decode_point((1 | 1 << 255).to_bytes(32, "little")))
        self.assertIsNone(q.decode_point((q.P - 1 | 1 << 255).to_bytes(32, "little")))
        self.assertIsNone(q.decode_point((2).to_bytes(32, "little")))
        self.assertEqual(q.encode_point(q.multiply(q.L, q.BASE)), q.encode_point(q.IDENTITY))

    def test_small_order_keys(self):
        order8 = "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"
        points = [(1).to_bytes(32, "little"), (q.P - 1).to_bytes(32, "little"), bytes(32)]
        points += [bytes(31) + b"\x80", bytes.fromhex(order8)]
        for public in points:
            self.assertIsNotNone(q.decode_point(public))
            self.assertIsNone(q.decode_public_key(public))
            # With A the identity and S zero, R the identity satisfies the equation.
            self.assertFalse(q.verify_signature(public, b"any", (1).to_bytes(32, "little") + bytes(32)))

    def test_r_of_small_order_or_not_canonical(self):
        # S and the key make R the identity, which is of small order; so is its other encoding, y = p + 1.
        secret = hashlib.sha256(b"r").digest()
        scalar, public = secret_scalar(secret)[0], public_key(secret)
        for y in (1, q.P + 1, 1 | 1 << 255):
            r = y.to_bytes(32, "little")
            k = int.from_bytes(hashlib.sha512(r + public + b"m").digest(), "little") % q.L
            signature = r + (k * scalar % q.L).to_bytes(32, "little")
            self.assertFalse(q.verify_signature(public, b"m", signature))


GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_TEXT = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
)
GO_LINE = (
    "\u2014 PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
GO_NOTE = GO_TEXT + "\n" + GO_LINE


class Notes(unittest.TestCase):
    def test_go_vector(self):
        key = q.parse_key(GO_KEY)
        self.assertEqual(q.open_note(GO_NOTE, [key]), (GO_TEXT, [key]))

    def test_bad(self):
        key = q.parse_key(GO_KEY)
        for note in (
            "", "\n", "\n\n", GO_TEXT, GO_TEXT + "\n", GO_TEXT + GO_LINE, GO_NOTE[:-1], GO_NOTE + "\n",
            GO_NOTE.replace("think", "thunk"), GO_NOTE.replace("\n", "\r\n"), "\x7f\x01" + GO_NOTE,
            GO_NOTE.replace("\u2014 ", "\u2014"), GO_NOTE.replace("\u2014", "--"), GO_NOTE.replace("=\n", "\n"),
            GO_NOTE.replace("AM=", "AN="), GO_NOTE.replace("AM=", "AM=="), GO_NOTE.replace("x08g", "x08 g"),
            GO_NOTE.replace(" x08", "  x08"), GO_NOTE.replace("PeterNeumann", "Peter+Neumann"),
            GO_NOTE.replace("PeterNeumann", "Peter\u00a0Neumann"), GO_NOTE.replace("PeterNeumann ", ""),
            GO_NOTE.replace("PeterNeumann", "Other"), GO_NOTE.replace("AM=\n", "AM= \n"),
            GO_NOTE + "\u2014 other AAAA\n", GO_NOTE + "\u2014 other AAAAAA\n", GO_NOTE + "rubbish\n",
            GO_NOTE + GO_LINE * 16, GO_TEXT + "\n" + GO_LINE.replace("/ZJ", "/ZK") + GO_LINE,
            GO_NOTE + GO_LINE.replace("/ZJ", "/ZK"), GO_NOTE.replace("think", "\ud800"),
            "x" * 1000000 + GO_NOTE,
        ):  # fmt: skip
            with self.subTest(note=ascii(note[-90:])), self.assertRaises(ValueError):
                q.open_note(note, [key])

    def test_unknown_signatures_are_passed_over(self):
        key = q.parse_key(GO_KEY)
        for extra in ("\u2014 other AAAAAAA=\n", GO_LINE, "\u2014 PeterNeumann AAAAAAA=\n"):
            self.assertEqual(q.open_note(GO_NOTE + extra * 15, [key])[0], GO_TEXT)

    def test_text_with_empty_lines(self):
        for text in ("a\n\nb\n", "\n", "a\n\n", "\n\n"):
            self.assertEqual(q.open_note(LOG.note(text), [q.parse_key(LOG.vkey)])[0], text)

    def test_keys(self):
        for text in (
            "", "+", "++", GO_KEY + "\n", " " + GO_KEY, GO_KEY[12:], GO_KEY.replace("c74f", "C74F"),
            GO_KEY.replace("c74f", "c74e"), GO_KEY.replace("PeterNeumann", "Peter Neumann"),
            GO_KEY.replace("+ARpc", "+AhpC"), GO_KEY[:-1], GO_KEY + "====", GO_KEY + "+", "\u00e9" + GO_KEY,
        ):  # fmt: skip
            with self.subTest(text=text), self.assertRaises(ValueError):
                q.parse_key(text)


class Vectors(Case):
    def check(self, value):
        path = self.file("vectors", value if isinstance(value, (str, bytes)) else json.dumps(value))
        out = []
        return q.check_vectors(path, out.append), out

    def event(self, event, **changes):
        lines = q.event_lines(event, TENANT, "run 1")
        return {
            "name": "one",
            "event": event,
            "tenant": TENANT,
            "session_id": "run 1",
            "lines": lines,
            "content_digest": lines[16],
            "hash": A[event["sequence"]]["hash"],
            **changes,
        }

    def vectors(self, **sections):
        return {"format": "quipu.vectors.v1", **sections}

    def test_good(self):
        bare = {name: value for name, value in A[0].items() if name != "kind"}
        wrong = {**A[1], "hash": "12" * 32}
        value = self.vectors(
            events=[self.event(e) for e in A] + [self.event(bare), self.event(wrong, valid=False)],
            notes=[
                {"name": "good", "vkey": GO_KEY, "note": GO_NOTE, "valid": True},
                {"name": "bad", "vkey": GO_KEY, "note": GO_NOTE + "\n", "valid": False},
                {"name": "bad key", "vkey": GO_KEY + "=", "note": GO_NOTE, "valid": False},
            ],
            json=[{"name": "good", "text": text, "compact": True} for text in Json.GOOD]
            + [{"name": "bad", "text": text, "compact": False} for text in Json.BAD],
        )
        status, out = self.check(value)
        self.assertEqual(status, 0, out)
        with contextlib.redirect_stdout(io.StringIO()):
            self.assertEqual(q.main(["--vectors", self.file("vectors", json.dumps(value))]), 0)

    def test_disagreement(self):
        for sections in (
            {"events": [self.event(A[0], hash="12" * 32)]},
            {"events": [self.event(A[0], content_digest="12" * 32)]},
            {"events": [self.event(A[0], lines=["quipu.event.v1"])]},
            {"events": [self.event(A[0], valid=False)]},
            {"events": [self.event({**A[0], "hash": "12" * 32})]},
            {"events": [self.event({**A[0], "agent_id": ""})]},
            {"events": [self.event(A[0], tenant="A")]},
            {"events": [self.event(A[0], session_id="\ud800")]},
            {"events": [{"name": "x", "event": None}]},
            {"events": {}},
            {"events": [1]},
            {"notes": [{"name": "x", "vkey": GO_KEY, "note": GO_NOTE, "valid": False}]},
            {"notes": [{"name": "x", "vkey": GO_KEY, "note": "", "valid": True}]},
            {"notes": [{"name": "x", "vkey": 1, "note": "", "valid": True}]},
            {"notes": [{"name": "x"}]},
            {"json": [{"name": "x", "text": "1", "compact": False}]},
            {"json": [{"name": "x", "text": " 1", "compact": True}]},
            {"json": [{"name": "x", "text": 1, "compact": True}]},
            {"json": None},
            {"other": []},
            {},
        ):
            self.assertEqual(self.check(self.vectors(**sections))[0], 1, sections)
        for text in ("", "[]", "{}", "{", b"\xff", "[" * 100000, '{"format":"quipu.vectors.v1","json":[],"json":[]}'):
            self.assertEqual(self.check(text)[0], 1)
        self.assertEqual(q.check_vectors(os.path.join(self.directory, "none"), str), 2)


class Published(Case):
    """The vectors in docs/vectors, which the other verifier made."""

    FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "docs", "vectors")

    def read(self, name):
        with open(os.path.join(self.FOLDER, name), "rb") as file:
            return file.read()

    def test_vectors(self):
        out = []
        self.assertEqual(q.check_vectors(os.path.join(self.FOLDER, "vectors.json"), out.append), 0, out)

    def test_whole_bundles(self):
        names = {name for name in os.listdir(self.FOLDER) if name.startswith("bundle-")}
        bundles = [name for name in names if name.endswith(".ndjson")]
        self.assertGreater(len(bundles), 1)
        for name in bundles:
            key = self.file("pin", self.read(name.replace(".ndjson", ".key")))
            more = name.replace(".ndjson", ".receipts.json")
            self.valid(self.read(name), key=key, receipts=[self.read(more)] if more in names else [])

    def test_bundles(self):
        published = json.loads(self.read("bundles.json"))
        self.assertEqual(published["format"], "quipu.bundle-vectors.v1")
        self.assertGreater(len(published["cases"]), 50)
        for case in published["cases"]:
            with self.subTest(case["name"]):
                lines = [published["lines"][line] if isinstance(line, int) else line for line in case["lines"]]
                key = self.file("pin", case["key"]) if case["key"] else None
                self.expect(
                    case["code"], "".join(lines).encode(), case["verdict"], key=key,
                    receipts=case["receipts"], kept=case["checkpoints"],
                    line=case["line"], session_id=case["session_id"], sequence=case["sequence"],
                )  # fmt: skip

if __name__ == "__main__":
    unittest.main()
