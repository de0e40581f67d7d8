#!/usr/bin/env python3
"""Second verifier of Quipu evidence, written from docs/format.md alone.

    quipu_verify.py BUNDLE [--key FILE] [--receipt FILE]... [--json]
    quipu_verify.py --vectors FILE

Needs Python 3.11 and nothing outside its standard library. Exit codes of the
first form: 0 VALID, 1 INVALID, 2 INCOMPLETE. Of the second: 0 all vectors
agree, 1 some do not, 2 the file cannot be read. 64 is a wrong command line.
"""

import argparse
import base64
import binascii
import datetime
import hashlib
import json
import re
import sys
from collections import namedtuple

LINE_LIMIT = 8 * 1024 * 1024
FILE_LIMIT = 8 * 1024 * 1024
KEY_FILE_LIMIT = 4096
NOTE_LIMIT = 1_000_000
SIGNATURE_LINES = 16
DEPTH_LIMIT = 128
SEQUENCE_MAX = 9223372036854775807
TIME_MIN = -62135596800000000
TIME_MAX = 253402300799999999
ZERO_HASH = "0" * 64


class Bad(Exception):
    """What makes a bundle INVALID."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code
        self.message = message


# ---------------------------------------------------------------- Ed25519

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
SQRT_MINUS_1 = pow(2, (P - 1) // 4, P)
IDENTITY = (0, 1, 1, 0)


def add(a, b):
    """Sum of two points in extended coordinates (RFC 8032, 5.1.4)."""
    x1, y1, z1, t1 = a
    x2, y2, z2, t2 = b
    m = (y1 - x1) * (y2 - x2) % P
    n = (y1 + x1) * (y2 + x2) % P
    c = 2 * t1 * t2 * D % P
    d = 2 * z1 * z2 % P
    e, f, g, h = n - m, d - c, d + c, n + m
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def multiply(scalar, point):
    result = IDENTITY
    while scalar:
        if scalar & 1:
            result = add(result, point)
        point = add(point, point)
        scalar >>= 1
    return result


def encode_point(point):
    x, y, z, _ = point
    inverse = pow(z, -1, P)
    x, y = x * inverse % P, y * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def decode_point(data):
    """The point, or None if the encoding is not the canonical one of a point."""
    number = int.from_bytes(data, "little")
    sign, y = number >> 255, number & (2**255 - 1)
    if y >= P:
        return None
    u, v = (y * y - 1) % P, (D * y * y + 1) % P
    x = u * pow(v, 3, P) * pow(u * pow(v, 7, P), (P - 5) // 8, P) % P
    if v * x * x % P == -u % P:
        x = x * SQRT_MINUS_1 % P
    if v * x * x % P != u:
        return None
    if x == 0 and sign:
        return None
    if x & 1 != sign:
        x = P - x
    return (x, y, 1, x * y % P)


BASE = decode_point((4 * pow(5, -1, P) % P).to_bytes(32, "little"))


def decode_public_key(data):
    """The point of a public key (or of an R, which has the same rules), or None
    if it is malformed or of small order."""
    point = decode_point(data) if len(data) == 32 else None
    if point is None or encode_point(multiply(8, point)) == encode_point(IDENTITY):
        return None
    return point


def verify_signature(public, message, signature):
    point = decode_public_key(public)
    if point is None or len(signature) != 64:
        return False
    r, s = signature[:32], int.from_bytes(signature[32:], "little")
    if s >= L or decode_public_key(r) is None:
        return False
    k = int.from_bytes(hashlib.sha512(r + public + message).digest(), "little") % L
    x, y, z, t = point
    expected = add(multiply(s, BASE), multiply(k, (P - x, y, z, P - t)))
    return encode_point(expected) == r


# ------------------------------------------------------------------- JSON

# Possessive repeats keep hostile strings linear in time and flat in memory.
STRING = (
    r'"(?:[^"\\\x00-\x1f\ud800-\udfff]++'
    r'|\\["\\/bfnrt]'
    r"|\\u[0-9a-cA-CefEF][0-9a-fA-F]{3}"
    r"|\\u[dD][0-7][0-9a-fA-F]{2}"
    r"|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r')*+"'
)
NUMBER = r"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?"
TOKEN = re.compile(
    rf"(?P<space>[ \t\n\r]++)|(?P<string>{STRING})"
    rf"|(?P<scalar>{NUMBER}|true|false|null)|(?P<mark>[{{}}\[\],:])"
)


def check_json(text, compact):
    """Raises ValueError unless text is JSON by section 1; with compact false,
    white space between the tokens is allowed."""
    names = []  # for each open container: the names seen, or None for an array
    want = "value"
    position = 0
    while position < len(text):
        match = TOKEN.match(text, position)
        if match is None:
            raise ValueError(f"not JSON at character {position}")
        where, position, kind = position, match.end(), match.lastgroup
        if kind == "space":
            if compact:
                raise ValueError(f"white space at character {where}")
            continue
        mark = match.group() if kind == "mark" else None
        if kind == "string" and want in ("name", "name or end"):
            name = json.loads(match.group())
            if name in names[-1]:
                raise ValueError(f"a member twice at character {where}")
            names[-1].add(name)
            want = "colon"
        elif mark is None and want in ("value", "value or end"):
            want = "comma"
        elif mark in ("{", "[") and want in ("value", "value or end"):
            if len(names) == DEPTH_LIMIT:
                raise ValueError(f"nested deeper than {DEPTH_LIMIT}")
            names.append(set() if mark == "{" else None)
            want = "name or end" if mark == "{" else "value or end"
        elif mark == ":" and want == "colon":
            want = "value"
        elif mark == "," and want == "comma" and names:
            want = "value" if names[-1] is None else "name"
        elif mark == "}" and want in ("name or end", "comma") and names and names[-1] is not None:
            names.pop()
            want = "comma"
        elif mark == "]" and want in ("value or end", "comma") and names and names[-1] is None:
            names.pop()
            want = "comma"
        else:
            raise ValueError(f"not JSON at character {where}")
    if names or want != "comma":
        raise ValueError("JSON that ends too early")


def parse_integer(text):
    # A number that no field can hold becomes a float, which no field accepts.
    if len(text) > 20 or text == "-0":
        return float(text)
    return int(text)


def parse_json(text):
    check_json(text, compact=False)
    return json.loads(text, parse_int=parse_integer)


# ------------------------------------------------------- syntax of fields

TENANT = re.compile(r"[a-z0-9-]{1,63}")
DEPLOYMENT = re.compile(r"[a-z0-9.-]{1,100}")
# The same language as in section 2: `_` needs no group of its own, since the
# class before it holds it, and without that choice matching stays linear.
EVENT_TYPE = re.compile(r"[a-z][a-z0-9_]*+(?:\.[a-z0-9_]++)*+")
UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
PII_TYPE = re.compile(r"[a-z0-9_]{1,32}")
HEX = re.compile(r"(?:[0-9a-f]{2})*+")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
DECIMAL = re.compile(r"0|-?[1-9][0-9]{0,18}")
TIME = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})\.([0-9]{6})Z"
)
SEVERITIES = ("debug", "info", "warn", "error", "critical")
EPOCH = datetime.datetime(1970, 1, 1)


def is_integer(value, low, high):
    return type(value) is int and low <= value <= high


def is_label(value, limit):
    return (
        isinstance(value, str)
        and 1 <= len(value.encode()) <= limit
        and CONTROL.search(value) is None
    )


def is_hex(value, size):
    return isinstance(value, str) and len(value) == 2 * size and bool(HEX.fullmatch(value))


def is_match(pattern, value):
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def microseconds(value):
    """The count of a time written as text, or None."""
    match = TIME.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return None
    try:
        moment = datetime.datetime(*map(int, match.groups()))
    except ValueError:
        return None
    return (moment - EPOCH) // datetime.timedelta(microseconds=1)


def decimal(text, low, high):
    """The number of a line of a statement, or None."""
    if DECIMAL.fullmatch(text) is None:
        return None
    number = int(text)
    return number if low <= number <= high else None


def is_pii_types(value):
    return (
        isinstance(value, list)
        and len(value) <= 32
        and all(is_match(PII_TYPE, name) for name in value)
        and all(a < b for a, b in zip(value, value[1:]))
    )


MEMBERS = {
    "bundle": {"kind", "format", "deployment", "tenant", "created_at", "log_key", "certificates"},
    "session": {"kind", "session_id"},
    "event": {
        "kind", "sequence", "event_id", "timestamp", "received_at", "agent_id", "event_type",
        "severity", "source_id", "compliance_tag", "pii_types", "redaction_count",
        "redaction_policy", "salt", "payload", "metadata", "content_digest", "prev_hash", "hash",
    },
    "head": {"kind", "note"},
    "end": {"kind", "sessions", "events"},
}  # fmt: skip

EVENT_FIELDS = {
    "sequence": lambda v: is_integer(v, 0, SEQUENCE_MAX),
    "event_id": lambda v: is_match(UUID7, v),
    "timestamp": lambda v: microseconds(v) is not None,
    "received_at": lambda v: microseconds(v) is not None,
    "agent_id": lambda v: is_label(v, 256),
    "event_type": lambda v: is_match(EVENT_TYPE, v) and len(v) <= 128,
    "severity": lambda v: v in SEVERITIES,
    "source_id": lambda v: v is None or is_label(v, 256),
    "compliance_tag": lambda v: is_label(v, 64),
    "pii_types": is_pii_types,
    "redaction_count": lambda v: is_integer(v, 0, 4294967295),
    "redaction_policy": lambda v: v is None or is_hex(v, 32),
    "prev_hash": lambda v: is_hex(v, 32),
    "hash": lambda v: is_hex(v, 32),
}


def check_members(record):
    if not isinstance(record, dict) or not isinstance(record.get("kind"), str):
        raise Bad("syntax", "not an object with a kind")
    members = MEMBERS.get(record["kind"])
    if members is None:
        raise Bad("syntax", f"unknown kind {ascii(record['kind'][:40])}")
    missing, extra = members - record.keys(), record.keys() - members
    if missing or extra:
        names = ", ".join(ascii(name[:40]) for name in sorted(missing or extra)[:5])
        raise Bad("syntax", ("missing members: " if missing else "unknown members: ") + names)


def check_json_field(name, value, limit):
    if not isinstance(value, str):
        raise Bad("syntax", f"{name} is not a string, though the event is not erased")
    if len(value.encode()) > limit:
        raise Bad("syntax", f"{name} is longer than {limit} bytes")
    try:
        check_json(value, compact=True)
    except ValueError as problem:
        raise Bad("syntax", f"{name} is not compact JSON: {problem}") from None


def check_event(record):
    """Section 2, for an event record whose members are already the right ones."""
    for name, fits in EVENT_FIELDS.items():
        if not fits(record[name]):
            raise Bad("syntax", f"{name} does not have its syntax")
    if record["content_digest"] is None:
        if not is_hex(record["salt"], 16):
            raise Bad("syntax", "salt does not have its syntax")
        check_json_field("payload", record["payload"], 1048576)
        check_json_field("metadata", record["metadata"], 65536)
        if not record["metadata"].startswith("{"):
            raise Bad("syntax", "metadata is not an object")
    else:
        if not is_hex(record["content_digest"], 32):
            raise Bad("syntax", "content_digest does not have its syntax")
        if any(record[name] is not None for name in ("salt", "payload", "metadata")):
            raise Bad("syntax", "salt, payload or metadata beside a content_digest")


# ------------------------------------------------------------------ chain


def content_digest(record):
    if record["content_digest"] is not None:
        return record["content_digest"]
    digest = hashlib.sha256(b"quipu.content.v1\n")
    digest.update(bytes.fromhex(record["salt"]))
    digest.update(record["payload"].encode() + b"\n" + record["metadata"].encode())
    return digest.hexdigest()


def event_lines(record, tenant, session_id):
    return [
        "quipu.event.v1",
        record["prev_hash"],
        tenant,
        session_id,
        str(record["sequence"]),
        record["event_id"],
        str(microseconds(record["timestamp"])),
        str(microseconds(record["received_at"])),
        record["agent_id"],
        record["event_type"],
        record["severity"],
        record["source_id"] or "",
        record["compliance_tag"],
        ",".join(record["pii_types"]),
        str(record["redaction_count"]),
        record["redaction_policy"] or "",
        content_digest(record),
    ]


def event_hash(lines):
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


# -------------------------------------------------- keys, notes, statements

Key = namedtuple("Key", "name id public")
Statement = namedtuple("Statement", "tenant session_id sequence hash time")


def decode_base64(text):
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("not base64") from None
    # The decoder passes over bits that no byte uses; two spellings of one
    # value are one too many.
    if base64.b64encode(data).decode() != text:
        raise ValueError("base64 that is not canonical")
    return data


def is_key_name(name):
    return name != "" and "+" not in name and not any(c.isspace() or c < " " for c in name)


def parse_key(text):
    """A verifier key; raises ValueError."""
    parts = text.split("+", 2)
    if len(parts) != 3 or not is_key_name(parts[0]) or not is_hex(parts[1], 4):
        raise ValueError("not a verifier key")
    data = decode_base64(parts[2])
    if len(data) != 33 or data[0] != 1:
        raise ValueError("not an Ed25519 verifier key")
    key_id = hashlib.sha256(parts[0].encode() + b"\n" + data).digest()[:4]
    if key_id.hex() != parts[1]:
        raise ValueError("a verifier key with a wrong key id")
    if decode_public_key(data[1:]) is None:
        raise ValueError("a verifier key whose point is not acceptable")
    return Key(parts[0], key_id, data[1:])


def split_note(note):
    """The text of a note and its signatures as (name, id, signature)."""
    if len(note.encode()) > NOTE_LIMIT:
        raise ValueError("a note that is too long")
    if any(c < " " and c != "\n" for c in set(note)):
        raise ValueError("a note with a control character")
    at = note.rfind("\n\n")
    if at < 0 or not note.endswith("\n"):
        raise ValueError("not a signed note")
    text, lines = note[: at + 1], note[at + 2 : -1].split("\n")
    if len(lines) > SIGNATURE_LINES:
        raise ValueError("a note with too many signature lines")
    signatures = []
    for line in lines:
        parts = line.split(" ")
        if len(parts) != 3 or parts[0] != "\u2014" or not is_key_name(parts[1]):
            raise ValueError("a malformed signature line")
        data = decode_base64(parts[2])
        if len(data) < 5:
            raise ValueError("a signature that is too short")
        signatures.append((parts[1], data[:4], data[4:]))
    return text, signatures


def open_note(note, keys):
    """The text of a note and the keys that signed it; raises ValueError if a
    signature of one of the keys does not verify, or none of them signed."""
    text, signatures = split_note(note)
    signers = []
    for name, key_id, signature in signatures:
        for key in keys:
            if (key.name, key.id) != (name, key_id):
                continue
            if not verify_signature(key.public, text.encode(), signature):
                raise ValueError("a signature that does not verify")
            signers.append(key)
    if not signers:
        raise ValueError("no signature of a known key")
    return text, signers


def parse_statement(text, kind):
    """A receipt or a head; raises ValueError."""
    lines = text.split("\n")
    if len(lines) != 7 or lines[6] != "" or lines[0] != kind:
        raise ValueError(f"not a {kind} statement")
    sequence = decimal(lines[3], 0, SEQUENCE_MAX)
    time = decimal(lines[5], TIME_MIN, TIME_MAX)
    if (
        not is_match(TENANT, lines[1])
        or not is_label(lines[2], 256)
        or sequence is None
        or not is_hex(lines[4], 32)
        or time is None
    ):
        raise ValueError(f"a {kind} statement with a malformed line")
    return Statement(lines[1], lines[2], sequence, lines[4], time)


def parse_certificate(note, deployment, log_key):
    """The receipt key that a certificate names; raises ValueError."""
    text, _ = open_note(note, [log_key])
    lines = text.split("\n")
    if len(lines) != 6 or lines[5] != "" or lines[0] != "quipu.key.v1" or lines[2] != "receipt":
        raise ValueError("not a certificate")
    if lines[1] != deployment:
        raise ValueError("a certificate of another deployment")
    key = parse_key(lines[3])
    if key.name != f"{deployment}/_receipt":
        raise ValueError("a certificate of a key with another name")
    if decimal(lines[4], TIME_MIN, TIME_MAX) is None:
        raise ValueError("a certificate with a malformed time")
    return key


# --------------------------------------------------------------- receipts


class Receipt:
    """A receipt from outside; what is wrong with it counts only after the bundle."""

    def __init__(self, note=None, claims=None, problem=None):
        self.note = note
        self.statement = None
        self.problem = problem
        if problem is not None:
            return
        try:
            self.statement = parse_statement(split_note(note)[0], "quipu.receipt.v1")
            if claims is not None:
                self.compare(claims)
        except ValueError as found:
            self.problem = str(found)

    def compare(self, claims):
        said = self.statement
        if (
            claims["session_id"] != said.session_id
            or not is_integer(claims["sequence"], 0, SEQUENCE_MAX)
            or claims["sequence"] != said.sequence
            or claims["hash"] != said.hash
            or microseconds(claims["time"]) != said.time
        ):
            raise ValueError("a receipt that does not agree with its note")


def read_receipts(path):
    with open(path, "rb") as file:
        data = file.read(FILE_LIMIT + 1)
    if len(data) > FILE_LIMIT:
        return [Receipt(problem="a file of receipts that is too long")]
    try:
        text = data.decode()
        if not text.lstrip(" \t\r\n").startswith(("{", "[")):
            return [Receipt(note=text)]
        value = parse_json(text)
    except ValueError as problem:
        return [Receipt(problem=f"not a file of receipts: {problem}")]
    if isinstance(value, dict):
        value = value["receipts"] if "receipts" in value else [value]
    if not isinstance(value, list) or not value:
        return [Receipt(problem="a file that holds no receipt")]
    receipts = []
    for item in value:
        if (
            not isinstance(item, dict)
            or item.keys() != {"session_id", "sequence", "hash", "time", "note"}
            or not isinstance(item["note"], str)
        ):
            receipts.append(Receipt(problem="not a receipt object"))
        else:
            receipts.append(Receipt(note=item["note"], claims=item))
    return receipts


# ----------------------------------------------------------------- bundle


class Verifier:
    """Takes a bundle line by line. What it keeps grows with the number of
    sessions and receipts, never with the number of events."""

    def __init__(self, pinned=None, receipts=()):
        self.pinned = pinned
        self.receipts = receipts
        self.wanted = {}  # session_id -> sequences that receipts name
        for receipt in receipts:
            if receipt.statement is not None:
                said = receipt.statement
                self.wanted.setdefault(said.session_id, set()).add(said.sequence)
        self.found = {}  # (session_id, sequence) -> hash
        self.state = "start"
        self.deployment = self.tenant = self.log_key = None
        self.receipt_keys = []
        self.seen = set()
        self.events = 0
        self.previous = (-1, ZERO_HASH)  # sequence and hash of the last event
        self.line = 0
        self.session_id = self.sequence = None  # the place, for a message

    def take_line(self, data):
        self.line += 1
        self.sequence = None
        if self.state == "ended":
            raise Bad("truncated", "something follows the end record")
        if len(data) > LINE_LIMIT:
            raise Bad("syntax", "a line longer than 8 MiB")
        if not data.endswith(b"\n"):
            raise Bad("truncated", "the last line does not end in a newline")
        try:
            text = data[:-1].decode()
            if not (text.startswith("{") and text.endswith("}")):
                raise ValueError("not one object")
            record = parse_json(text)
        except ValueError as problem:
            raise Bad("syntax", f"the line is not a JSON object: {problem}") from None
        check_members(record)
        kind = record["kind"]
        if (kind == "bundle") != (self.state == "start"):
            raise Bad("syntax", f"a {kind} record out of order")
        getattr(self, f"take_{kind}")(record)

    def take_bundle(self, record):
        if record["format"] != "quipu.bundle.v1":
            raise Bad("syntax", "unknown format")
        certificates = record["certificates"]
        if (
            not is_match(DEPLOYMENT, record["deployment"])
            or not is_match(TENANT, record["tenant"])
            or microseconds(record["created_at"]) is None
            or not isinstance(record["log_key"], str)
            or not isinstance(certificates, list)
            or not certificates
            or not all(isinstance(note, str) for note in certificates)
        ):
            raise Bad("syntax", "a member of the bundle record does not have its syntax")
        self.deployment, self.tenant = record["deployment"], record["tenant"]
        try:
            self.take_keys(record["log_key"], certificates)
        except ValueError as problem:
            raise Bad("key", str(problem)) from None
        self.state = "between"

    def take_keys(self, log_key, certificates):
        self.log_key = parse_key(log_key)
        if self.log_key.name != f"{self.deployment}/_log":
            raise ValueError("the log key has another name than the deployment")
        if self.pinned is not None and self.pinned != self.log_key:
            raise ValueError("the log key is not the key given")
        for note in certificates:
            key = parse_certificate(note, self.deployment, self.log_key)
            if key not in self.receipt_keys:
                self.receipt_keys.append(key)

    def open_statement(self, note, kind):
        """A statement in a note signed by a certified receipt key."""
        text, _ = open_note(note, self.receipt_keys)
        return parse_statement(text, kind)

    def take_session(self, record):
        session_id = record["session_id"]
        if not is_label(session_id, 256):
            raise Bad("syntax", "session_id does not have its syntax")
        if self.state == "events":
            raise Bad("syntax", "a session record where the head of the session before belongs")
        if session_id in self.seen:
            raise Bad("syntax", "a session twice")
        if self.state == "session":
            raise Bad("empty", "a session without events")
        self.seen.add(session_id)
        self.session_id = session_id
        self.previous = (-1, ZERO_HASH)
        self.state = "session"

    def take_event(self, record):
        if self.state not in ("session", "events"):
            raise Bad("syntax", "an event record outside a session")
        check_event(record)
        self.sequence = record["sequence"]
        sequence, previous_hash = self.previous
        if record["sequence"] != sequence + 1:
            raise Bad("sequence", f"expected sequence {sequence + 1}")
        if record["prev_hash"] != previous_hash:
            raise Bad("prev_hash", "prev_hash is not the hash of the event before")
        if event_hash(event_lines(record, self.tenant, self.session_id)) != record["hash"]:
            raise Bad("hash", "hash is not that of the event")
        self.previous = (record["sequence"], record["hash"])
        self.events += 1
        self.state = "events"
        if record["sequence"] in self.wanted.get(self.session_id, ()):
            self.found[self.session_id, record["sequence"]] = record["hash"]

    def take_head(self, record):
        if not isinstance(record["note"], str):
            raise Bad("syntax", "note is not a string")
        if self.state == "session":
            raise Bad("empty", "a session without events")
        if self.state != "events":
            raise Bad("syntax", "a head record outside a session")
        try:
            said = self.open_statement(record["note"], "quipu.head.v1")
        except ValueError as problem:
            raise Bad("head", str(problem)) from None
        if (said.tenant, said.session_id) != (self.tenant, self.session_id):
            raise Bad("head", "the head names another session")
        if (said.sequence, said.hash) != self.previous:
            raise Bad("head", "the head does not name the last event of its session")
        self.session_id = None
        self.state = "between"

    def take_end(self, record):
        for name in ("sessions", "events"):
            if not is_integer(record[name], 0, SEQUENCE_MAX):
                raise Bad("syntax", f"{name} is not a count")
        if self.state == "events":
            raise Bad("syntax", "an end record where the head of the session belongs")
        if (record["sessions"], record["events"]) != (len(self.seen), self.events):
            raise Bad("count", f"the bundle has {len(self.seen)} sessions, {self.events} events")
        if self.state == "session":
            raise Bad("empty", "a session without events")
        if not self.seen:
            raise Bad("empty", "a bundle without sessions")
        self.state = "ended"

    def finish(self):
        """After the last line. The verdict is INVALID by Bad, or the pair of a
        code and a message of what is missing, or None."""
        self.sequence = None
        if self.state != "ended":
            self.line += 1
            raise Bad("truncated", "the bundle ends without an end record")
        self.line = None
        uncovered = False
        for receipt in self.receipts:
            self.session_id = self.sequence = None
            if receipt.statement is not None:
                self.session_id = receipt.statement.session_id
                self.sequence = receipt.statement.sequence
            if receipt.problem is not None:
                raise Bad("receipt", receipt.problem)
            try:
                said = self.open_statement(receipt.note, "quipu.receipt.v1")
            except ValueError as problem:
                raise Bad("receipt", str(problem)) from None
            if said.tenant != self.tenant or said.session_id not in self.seen:
                uncovered = True
            elif self.found.get((said.session_id, said.sequence)) != said.hash:
                raise Bad("receipt", "the bundle does not hold the event of a receipt")
        if self.pinned is None:
            return "no_key", "no key was given from outside"
        if uncovered:
            return "receipt_not_covered", "the session of a receipt is not in the bundle"
        return None


def read_key(path):
    """The key of a file; raises OSError or ValueError if it gives none."""
    with open(path, "rb") as file:
        data = file.read(KEY_FILE_LIMIT + 1)
    if len(data) > KEY_FILE_LIMIT:
        raise ValueError("a key file that is too long")
    return parse_key(data.decode().strip(" \t\r\n"))


def verify(path, key_path=None, receipt_paths=()):
    """The verdict, as the object that --json prints."""
    unreadable = None
    pinned, receipts = None, []
    if key_path is not None:
        try:
            pinned = read_key(key_path)
        except (OSError, ValueError) as problem:
            unreadable = ("unreadable", ascii(str(problem)))
    for receipt_path in receipt_paths:
        try:
            receipts.extend(read_receipts(receipt_path))
        except (OSError, ValueError) as problem:
            unreadable = unreadable or ("unreadable", ascii(str(problem)))

    verifier = Verifier(pinned, receipts)
    verdict, code, message, line, session_id, sequence = "VALID", None, None, None, None, None
    try:
        with open(path, "rb") as file:
            while data := file.readline(LINE_LIMIT + 1):
                verifier.take_line(data)
        missing = verifier.finish()
        missing = unreadable or missing
        if missing is not None:
            verdict = "INCOMPLETE"
            code, message = missing
    except Bad as bad:
        verdict, code, message = "INVALID", bad.code, bad.message
        line, session_id, sequence = verifier.line, verifier.session_id, verifier.sequence
    except (OSError, ValueError) as problem:  # ValueError: a path with a zero byte
        verdict, code, message = "INCOMPLETE", "unreadable", ascii(str(problem))
    return {
        "verdict": verdict,
        "code": code,
        "session_id": session_id,
        "sequence": sequence,
        "line": line,
        "message": message,
        "sessions": len(verifier.seen),
        "events": verifier.events,
    }


def describe(result):
    counts = f"{result['sessions']} sessions, {result['events']} events"
    if result["verdict"] == "VALID":
        return f"VALID {counts}"
    place = []
    if result["line"] is not None:
        place.append(f"line {result['line']}")
    if result["session_id"] is not None:
        place.append(f"session {json.dumps(result['session_id'])}")
    if result["sequence"] is not None:
        place.append(f"sequence {result['sequence']}")
    where = f" at {', '.join(place)}" if place else ""
    return f"{result['verdict']} {result['code']}{where}: {result['message']} ({counts} verified)"


# ---------------------------------------------------------------- vectors


def event_vector(vector):
    """What disagrees in an event vector, or None."""
    expected = vector.get("valid", True)
    lines, problem = None, None
    try:
        record = {"kind": "event", **vector["event"]}
        check_members(record)
        check_event(record)
        if not is_match(TENANT, vector["tenant"]) or not is_label(vector["session_id"], 256):
            raise Bad("syntax", "tenant or session_id does not have its syntax")
        lines = event_lines(record, vector["tenant"], vector["session_id"])
        if record["hash"] != event_hash(lines):
            raise Bad("hash", "hash is not that of the event")
    except (Bad, UnicodeEncodeError) as found:
        problem = str(found)
    if expected != (problem is None):
        return problem or "valid, where it should not be"
    if lines is not None:
        computed = {
            "lines": lines,
            "content_digest": lines[16],
            "hash": event_hash(lines),
        }
        for name, value in computed.items():
            if vector[name] != value:
                return f"{name} is {value!r}"
    return None


def note_vector(vector):
    try:
        open_note(vector["note"], [parse_key(vector["vkey"])])
        problem = None
    except ValueError as found:
        problem = str(found)
    if vector["valid"] != (problem is None):
        return problem or "valid, where it should not be"
    return None


def json_vector(vector):
    try:
        check_json(vector["text"], compact=True)
        problem = None
    except ValueError as found:
        problem = str(found)
    if vector["compact"] != (problem is None):
        return problem or "compact JSON, where it should not be"
    return None


def refuse_twice(pairs):
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a member twice")
    return result


def check_vectors(path, print_line):
    try:
        with open(path, "rb") as file:
            data = file.read()
    except (OSError, ValueError) as problem:
        print_line(f"unreadable: {ascii(str(problem))}")
        return 2
    try:
        # Plain JSON here: a text of a vector may well be one that is refused.
        vectors = json.loads(data.decode(), object_pairs_hook=refuse_twice)
    except (ValueError, RecursionError) as problem:
        print_line(f"not a file of vectors: {problem}")
        return 1
    if not isinstance(vectors, dict) or vectors.get("format") != "quipu.vectors.v1":
        print_line("not a file of vectors: unknown format")
        return 1
    checks = {"events": event_vector, "notes": note_vector, "json": json_vector}
    total = failures = 0
    for section, check in checks.items():
        group = vectors.get(section, [])
        for number, vector in enumerate(group if isinstance(group, list) else [group]):
            total += 1
            name = f"#{number}"
            try:
                name = f"#{number} {ascii(vector['name'])}"
                problem = check(vector)
            except (KeyError, TypeError, AttributeError, ValueError) as found:
                problem = f"a malformed vector: {found!r}"
            if problem is not None:
                failures += 1
                print_line(f"FAIL {section} {name}: {ascii(problem)}")
    unknown = vectors.keys() - checks.keys() - {"format"}
    if unknown:
        failures += 1
        print_line(f"FAIL unknown sections: {ascii(sorted(unknown))}")
    if total == 0:
        failures += 1
        print_line("FAIL no vectors")
    print_line(f"{'FAIL' if failures else 'OK'} {total} vectors, {failures} failures")
    return 1 if failures else 0


# ----------------------------------------------------------- command line


class Parser(argparse.ArgumentParser):
    def error(self, message):
        # The usual exit code of a wrong command line, 2, means INCOMPLETE here.
        self.print_usage(sys.stderr)
        self.exit(64, f"{self.prog}: {message}\n")


def main(arguments=None):
    parser = Parser(description="Verifies a Quipu evidence bundle.", allow_abbrev=False)
    parser.add_argument("bundle", nargs="?", metavar="BUNDLE")
    parser.add_argument("--key", metavar="FILE", help="the log key, known from outside")
    parser.add_argument("--receipt", metavar="FILE", action="append", default=[])
    parser.add_argument("--json", action="store_true", help="print the verdict as JSON")
    parser.add_argument("--vectors", metavar="FILE", help="check a file of test vectors")
    options = parser.parse_args(arguments)
    if (options.bundle is None) == (options.vectors is None):
        parser.error("give either a BUNDLE or --vectors")
    if options.vectors is not None:
        if options.key is not None or options.receipt or options.json:
            parser.error("--vectors stands alone")
        return check_vectors(options.vectors, print)
    result = verify(options.bundle, options.key, options.receipt)
    print(json.dumps(result) if options.json else describe(result))
    return {"VALID": 0, "INVALID": 1, "INCOMPLETE": 2}[result["verdict"]]


if __name__ == "__main__":
    sys.exit(main())
