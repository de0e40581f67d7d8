#!/usr/bin/env python3
"""Second verifier of Quipu evidence, written from docs/format.md alone.

    quipu_verify.py BUNDLE [--key FILE] [--receipt FILE]... [--checkpoint FILE]... [--json]
    quipu_verify.py DIRECTORY [--key FILE] [--receipt FILE]... [--checkpoint FILE]... [--json]
    quipu_verify.py --proof FILE --hash HEX [--key FILE] [--json]
    quipu_verify.py --vectors FILE

The second form reads an archive: a directory that holds `log/` and `events/`.
The third checks a c2sp.org/tlog-proof@v1 text for the event of that hash.

Needs Python 3.11 and nothing outside its standard library, but for an archive
pyarrow. Exit codes of the first three forms: 0 VALID, 1 INVALID, 2 INCOMPLETE.
Of the last: 0 all vectors agree, 1 some do not, 2 the file cannot be read. 64
is a wrong command line.
"""

import argparse
import base64
import binascii
import datetime
import hashlib
import json
import mmap
import os
import re
import sys
import uuid
from collections import namedtuple
from decimal import Decimal

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
DAY = 24 * 60 * 60 * 1_000_000  # microseconds


class Bad(Exception):
    """What makes the evidence INVALID."""

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
    "rotation": {"kind", "note"},
    "checkpoint": {"kind", "note"},
    "proof": {"kind", "first", "count", "leaf", "hashes"},
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


# ------------------------------------------------------------- tombstones

TOMBSTONE_TYPE = "quipu.erased"
TOMBSTONE_SESSION = "_erased/"
TOMBSTONE_MEMBERS = {
    "event_id", "session_id", "sequence", "hash", "content_digest", "token_id", "reason",
}  # fmt: skip
REASON_LIMIT = 1024

# An erased event: what its tombstone must say.
Erased = namedtuple("Erased", "event_id session_id sequence hash content_digest")


def parse_tombstone(payload):
    """What the payload of a tombstone says, as Erased; None if it is not one."""
    try:
        said = parse_json(payload)
    except ValueError:
        return None
    if not isinstance(said, dict) or said.keys() != TOMBSTONE_MEMBERS:
        return None
    fits = (
        is_match(UUID7, said["event_id"])
        and is_label(said["session_id"], 256)
        and is_integer(said["sequence"], 0, SEQUENCE_MAX)
        and is_hex(said["hash"], 32)
        and is_hex(said["content_digest"], 32)
        and (said["token_id"] is None or isinstance(said["token_id"], str))
        and (
            said["reason"] is None
            or (isinstance(said["reason"], str) and len(said["reason"].encode()) <= REASON_LIMIT)
        )
    )
    return Erased(*(said[name] for name in Erased._fields)) if fits else None


class Erasures:
    """Erased events and tombstones of one tenant (section 3)."""

    def __init__(self):
        self.erased = []  # (Erased, whether it is of the tombstones' type, place)
        self.graves = {}  # id of the erased event -> (Erased, the tombstone's own id)

    def see(self, event_id, session_id, sequence, event_type, event_hash, digest, payload, place=None):
        """Takes an event whose hash is right; digest is None unless it is erased."""
        if digest is not None:
            erased = Erased(event_id, session_id, sequence, event_hash, digest)
            self.erased.append((erased, event_type == TOMBSTONE_TYPE, place))
        elif event_type == TOMBSTONE_TYPE and sequence == 0 and session_id.startswith(TOMBSTONE_SESSION):
            said = parse_tombstone(payload)
            if said is not None and session_id == TOMBSTONE_SESSION + said.event_id:
                self.graves[said.event_id] = (said, event_id)

    def problem(self, erased, is_tombstone):
        """What is wrong with an erased event, or None."""
        if is_tombstone:
            return "the content of a tombstone is gone"
        grave = self.graves.get(erased.event_id)
        if grave is None:
            return "the content is gone, and there is no tombstone"
        if grave[0] != erased:
            return "the content is gone, and the tombstone is of something else"
        return None


# -------------------------------------------------- keys, notes, statements

class Key(namedtuple("Key", "name id public")):
    def renamed(self, name):
        """The same key under another name; the id follows from the name."""
        data = name.encode() + b"\n\x01" + self.public
        return Key(name, hashlib.sha256(data).digest()[:4], self.public)


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


def parse_certificate(note, deployment, log_keys):
    """The receipt key that a certificate names; raises ValueError."""
    text, _ = open_note(note, log_keys)
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


# ------------------------------------------------ key chain and checkpoint

Checkpoint = namedtuple("Checkpoint", "deployment tenant size root")


def parse_log_key(text, deployment):
    key = parse_key(text)
    if key.name != f"{deployment}/_log":
        raise ValueError("a log key with another name than the deployment's")
    return key


class KeyChain:
    """The log keys of a deployment, oldest first. Between two of them stands a
    rotation, which says at what tree sizes the older one ended."""

    def __init__(self, deployment):
        self.deployment = deployment
        self.keys = []
        self.ends = []  # for each rotation: tenant -> tree size

    def add_rotation(self, note):
        """Raises ValueError unless the rotation follows those before it."""
        lines = split_note(note)[0].split("\n")
        if len(lines) < 6 or lines[-1] != "" or lines[0] != "quipu.rotation.v1":
            raise ValueError("not a rotation")
        if lines[1] != self.deployment:
            raise ValueError("a rotation of another deployment")
        old, new = (parse_log_key(line, self.deployment) for line in lines[2:4])
        if decimal(lines[4], TIME_MIN, TIME_MAX) is None:
            raise ValueError("a rotation with a malformed time")
        ends = {}
        previous = ""
        for line in lines[5:-1]:
            tenant, _, size = line.partition(" ")
            ends[tenant] = decimal(size, 1, SEQUENCE_MAX)
            if not is_match(TENANT, tenant) or tenant <= previous or ends[tenant] is None:
                raise ValueError("a rotation with a malformed or misplaced tenant")
            previous = tenant
        if self.keys and old != self.keys[-1]:
            raise ValueError("a rotation from another key than the one before it gives")
        if self.ends and any(ends.get(name, 0) < size for name, size in self.ends[-1].items()):
            raise ValueError("a rotation at a smaller tree than the one before it")
        if new in (self.keys or [old]):
            raise ValueError("a rotation to a key that there was before")
        for key in (old, new):
            open_note(note, [key])
        self.keys = [*(self.keys or [old]), new]
        self.ends.append(ends)

    def close(self, log_key, pinned):
        """Raises ValueError unless the chain ends with the log key and holds the
        pinned one."""
        if not self.keys:
            self.keys = [log_key]
        if self.keys[-1] != log_key:
            raise ValueError("the rotations do not end with the log key")
        if pinned is not None and pinned not in self.keys:
            raise ValueError("the key given is none of the log keys")

    def holding(self, tenant, size):
        """The key that signs what a tenant's log says at a tree size."""
        for key, ends in zip(self.keys, self.ends):
            if size <= ends.get(tenant, 0):
                return key
        return self.keys[-1]


def parse_checkpoint(text):
    """A checkpoint's text; raises ValueError."""
    lines = text.split("\n")
    if len(lines) != 4 or lines[3] != "":
        raise ValueError("not a checkpoint of three lines")
    deployment, slash, tenant = lines[0].partition("/")
    size, root = decimal(lines[1], 0, SEQUENCE_MAX), decode_base64(lines[2])
    if not slash or not is_match(DEPLOYMENT, deployment) or not is_match(TENANT, tenant):
        raise ValueError("a checkpoint with another kind of origin")
    if size is None or len(root) != 32:
        raise ValueError("a checkpoint with a malformed line")
    return Checkpoint(deployment, tenant, size, root)


def open_checkpoint(note, keys):
    """A checkpoint in a note that one of these log keys signed under the name of
    the checkpoint's origin; raises ValueError."""
    checkpoint = parse_checkpoint(split_note(note)[0])
    origin = f"{checkpoint.deployment}/{checkpoint.tenant}"
    open_note(note, [key.renamed(origin) for key in keys])
    return checkpoint


def open_held_checkpoint(note, chain):
    """The same, signed by the key that holds for its size."""
    said = parse_checkpoint(split_note(note)[0])
    return open_checkpoint(note, [chain.holding(said.tenant, said.size)])


class Kept:
    """A checkpoint from outside; what is wrong with it counts only after all else."""

    def __init__(self, data):
        self.note = self.said = self.problem = None
        try:
            if len(data) > NOTE_LIMIT:
                raise ValueError("a file that is too long for a checkpoint")
            self.note = data.decode()
            self.said = parse_checkpoint(split_note(self.note)[0])
        except ValueError as found:
            self.problem = f"not a checkpoint: {found}"

    def open(self, chain):
        if self.problem is not None:
            raise Bad("rollback", self.problem)
        try:
            if self.said.deployment != chain.deployment:
                raise ValueError("a checkpoint of another deployment")
            return open_checkpoint(self.note, chain.keys)
        except ValueError as problem:
            raise Bad("rollback", str(problem)) from None


def read_checkpoint(path):
    with open(path, "rb") as file:
        return Kept(file.read(NOTE_LIMIT + 1))


# ------------------------------------------------------------------- tree


def leaf_hash(entry):
    return hashlib.sha256(b"\0" + entry).digest()


def node_hash(left, right):
    return hashlib.sha256(b"\1" + left + right).digest()


class Tree:
    """A growing tree, as the roots of its perfect subtrees, largest first."""

    def __init__(self):
        self.size = 0
        self.roots = []

    def push(self, leaf):
        count = self.size
        while count & 1:
            leaf = node_hash(self.roots.pop(), leaf)
            count >>= 1
        self.roots.append(leaf)
        self.size += 1

    def root(self):
        if not self.roots:
            return hashlib.sha256().digest()
        root = self.roots[-1]
        for left in reversed(self.roots[:-1]):
            root = node_hash(left, root)
        return root


def verify_range(first_leaf, count, entry, size, hashes, root):
    """Whether the `count` entries that `entry(0)` and so on give are those from
    first_leaf on in the tree (format.md, section 5)."""
    if count < 1 or first_leaf + count > size:
        return False
    rest = iter(hashes)

    def subtree(low, high):
        if high <= first_leaf or low >= first_leaf + count:
            return next(rest)
        if high - low == 1:
            return leaf_hash(entry(low - first_leaf))
        middle = low + (1 << (high - low - 1).bit_length() - 1)
        left = subtree(low, middle)
        return node_hash(left, subtree(middle, high))

    try:
        found = subtree(0, size)
    except StopIteration:
        return False
    return found == root and next(rest, None) is None


def verify_inclusion(leaf, index, size, path, root):
    """RFC 6962, section 2.1.1, by the algorithm of RFC 9162, section 2.1.3.2."""
    if index >= size:
        return False
    last = size - 1
    for sibling in path:
        if last == 0:
            return False
        if index & 1 or index == last:
            leaf = node_hash(sibling, leaf)
            while index and not index & 1:
                index >>= 1
                last >>= 1
        else:
            leaf = node_hash(leaf, sibling)
        index >>= 1
        last >>= 1
    return last == 0 and leaf == root


# ------------------------------------------------------- proof of one event


def parse_tlog_proof(text):
    """Index, hashes and checkpoint note of a c2sp.org/tlog-proof@v1 text; raises
    ValueError."""
    head, blank, note = text.partition("\n\n")
    lines = head.split("\n")
    if not blank or lines.pop(0) != "c2sp.org/tlog-proof@v1":
        raise ValueError("not a tlog-proof@v1")
    if lines and lines[0].startswith("extra "):
        decode_base64(lines.pop(0).removeprefix("extra "))
    if not lines or not lines[0].startswith("index "):
        raise ValueError("a proof without an index")
    index = decimal(lines.pop(0).removeprefix("index "), 0, SEQUENCE_MAX)
    if index is None:
        raise ValueError("a proof with a malformed index")
    hashes = [decode_base64(line) for line in lines]
    if any(len(item) != 32 for item in hashes):
        raise ValueError("a proof with a malformed hash")
    return index, hashes, note


def verify_proof(path, digest, key_path=None):
    """The verdict on a proof for the event with this hash."""
    pinned, problem = None, None
    if key_path is not None:
        try:
            pinned = read_key(key_path)
        except (OSError, ValueError) as found:
            problem = ascii(str(found))
    result = {"verdict": "VALID", "code": None, "message": None}
    result |= {"tenant": None, "index": None, "tree_size": None, "root": None}

    def judge(verdict, code, message):
        return result | {"verdict": verdict, "code": code, "message": message}

    try:
        with open(path, "rb") as file:
            data = file.read(FILE_LIMIT + 1)
    except (OSError, ValueError) as found:
        return judge("INCOMPLETE", "unreadable", ascii(str(found)))
    try:
        if len(data) > FILE_LIMIT:
            raise ValueError("a proof that is too long")
        index, hashes, note = parse_tlog_proof(data.decode())
    except ValueError as found:
        return judge("INVALID", "proof", str(found))
    try:
        said = parse_checkpoint(split_note(note)[0])
        if pinned is not None:
            if pinned.name != f"{said.deployment}/_log":
                raise ValueError("a checkpoint of another deployment than the key's")
            open_checkpoint(note, [pinned])
    except ValueError as found:
        return judge("INVALID", "checkpoint", str(found))
    if not verify_inclusion(leaf_hash(bytes.fromhex(digest)), index, said.size, hashes, said.root):
        return judge("INVALID", "proof", "the proof does not lead from the event to the root")
    result |= {"tenant": said.tenant, "index": index, "tree_size": said.size}
    result["root"] = said.root.hex()
    if problem is not None:
        return judge("INCOMPLETE", "unreadable", problem)
    if pinned is None:
        return judge("INCOMPLETE", "no_key", "no key was given from outside")
    return result


def describe_proof(result):
    if result["verdict"] == "VALID":
        tree = f"{result['tenant']}, tree size {result['tree_size']}, root {result['root']}"
        return f"VALID leaf {result['index']} of {tree}"
    return f"{result['verdict']} {result['code']}: {result['message']}"


# --------------------------------------------------------------- receipts


class Receipt:
    """A receipt from outside; what is wrong with it counts only after all else."""

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
    sessions and receipts; of the events it keeps only the hashes of one session,
    and those only if there is a checkpoint that its proofs can lead to."""

    def __init__(self, pinned=None, receipts=(), checkpoints=()):
        self.pinned = pinned
        self.receipts = receipts
        self.kept = checkpoints
        self.wanted = {}  # session_id -> sequences that receipts name
        for receipt in receipts:
            if receipt.statement is not None:
                said = receipt.statement
                self.wanted.setdefault(said.session_id, set()).add(said.sequence)
        self.found = {}  # (session_id, sequence) -> hash
        self.state = "start"
        self.deployment = self.tenant = self.log_key = None
        self.chain = None
        self.certificates = []  # until the chain is known that they hang on
        self.receipt_keys = []
        self.checkpoint = None
        self.hashes = bytearray()  # of the events of this session
        self.proven = 0  # the sequence after the last proof of this session
        self.seen = set()
        self.events = 0
        self.previous = (-1, ZERO_HASH)  # sequence and hash of the last event
        self.erasures = Erasures()
        self.line = 0
        self.session_id = self.sequence = None  # the place, for a message

    def take_line(self, data):
        self.line += 1
        self.sequence = None
        if self.state == "ended":
            raise Bad("truncated", "something follows the end record")
        if len(data) > LINE_LIMIT:
            self.close_chain()
            raise Bad("syntax", "a line longer than 8 MiB")
        if not data.endswith(b"\n"):
            self.close_chain()
            raise Bad("truncated", "the last line does not end in a newline")
        try:
            text = data[:-1].decode()
            if not (text.startswith("{") and text.endswith("}")):
                raise ValueError("not one object")
            record = parse_json(text)
        except ValueError as problem:
            self.close_chain()
            raise Bad("syntax", f"the line is not a JSON object: {problem}") from None
        if record.get("kind") != "rotation":
            self.close_chain()
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
        self.chain = KeyChain(self.deployment)
        self.certificates = certificates
        try:
            self.log_key = parse_log_key(record["log_key"], self.deployment)
        except ValueError as problem:
            raise Bad("key", str(problem)) from None
        self.state = "rotations"

    def take_rotation(self, record):
        self.check_note(record)
        if self.state != "rotations":
            raise Bad("syntax", "a rotation record that does not follow the first line")
        try:
            self.chain.add_rotation(record["note"])
        except ValueError as problem:
            raise Bad("key", str(problem)) from None

    def close_chain(self):
        """Once no more rotations can come: what the first line says of keys."""
        if self.state != "rotations":
            return
        line, self.line = self.line, 1
        try:
            self.chain.close(self.log_key, self.pinned)
            for note in self.certificates:
                key = parse_certificate(note, self.deployment, self.chain.keys)
                if key not in self.receipt_keys:
                    self.receipt_keys.append(key)
        except ValueError as problem:
            raise Bad("key", str(problem)) from None
        self.line = line
        self.state = "checkpoint"

    def check_note(self, record):
        if not isinstance(record["note"], str):
            raise Bad("syntax", "note is not a string")

    def take_checkpoint(self, record):
        self.check_note(record)
        if self.state != "checkpoint":
            raise Bad("syntax", "a checkpoint record that is not before the first session")
        try:
            said = open_held_checkpoint(record["note"], self.chain)
        except ValueError as problem:
            raise Bad("checkpoint", str(problem)) from None
        if (said.deployment, said.tenant) != (self.deployment, self.tenant):
            raise Bad("checkpoint", "a checkpoint of another log")
        self.checkpoint = said
        self.state = "between"

    def open_statement(self, note, kind):
        """A statement in a note signed by a certified receipt key."""
        text, _ = open_note(note, self.receipt_keys)
        return parse_statement(text, kind)

    def take_session(self, record):
        session_id = record["session_id"]
        if not is_label(session_id, 256):
            raise Bad("syntax", "session_id does not have its syntax")
        if self.state in ("events", "proofs"):
            raise Bad("syntax", "a session record where the head of the session before belongs")
        if session_id in self.seen:
            raise Bad("syntax", "a session twice")
        if self.state == "session":
            raise Bad("empty", "a session without events")
        self.seen.add(session_id)
        self.session_id = session_id
        self.previous = (-1, ZERO_HASH)
        self.hashes.clear()
        self.proven = 0
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
        names = ("event_id", "sequence", "event_type", "hash", "content_digest", "payload")
        event_id, sequence, event_type, digest_of_all, digest, payload = (record[name] for name in names)
        self.erasures.see(
            event_id, self.session_id, sequence, event_type, digest_of_all, digest, payload
        )
        if self.checkpoint is not None:
            self.hashes += bytes.fromhex(record["hash"])
        self.events += 1
        self.state = "events"
        if record["sequence"] in self.wanted.get(self.session_id, ()):
            self.found[self.session_id, record["sequence"]] = record["hash"]

    def take_proof(self, record):
        first, count, leaf = record["first"], record["count"], record["leaf"]
        hashes = record["hashes"]
        if (
            not all(is_integer(value, 0, SEQUENCE_MAX) for value in (first, count, leaf))
            or not isinstance(hashes, list)
            or not all(is_hex(item, 32) for item in hashes)
        ):
            raise Bad("syntax", "a member of the proof record does not have its syntax")
        if self.state not in ("events", "proofs"):
            raise Bad("syntax", "a proof record that does not follow the events of a session")
        if self.checkpoint is None:
            raise Bad("proof", "a proof without a checkpoint")
        if count < 1 or first + count - 1 > self.previous[0]:
            raise Bad("proof", "a proof of events that the session does not have")
        if first < self.proven:
            raise Bad("proof", "a proof that overlaps the one before it, or should stand before it")

        def entry(index):
            at = 32 * (first + index)
            return bytes(self.hashes[at : at + 32])

        path = [bytes.fromhex(item) for item in hashes]
        if not verify_range(leaf, count, entry, self.checkpoint.size, path, self.checkpoint.root):
            raise Bad("proof", "the proof does not lead from the events to the root")
        self.proven = first + count
        self.state = "proofs"

    def take_head(self, record):
        self.check_note(record)
        if self.state == "session":
            raise Bad("empty", "a session without events")
        if self.state not in ("events", "proofs"):
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
        if self.state in ("events", "proofs"):
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
        self.session_id = None
        unburied = False
        for erased, is_tombstone, _ in self.erasures.erased:
            if TOMBSTONE_SESSION + erased.event_id not in self.seen and not is_tombstone:
                unburied = True
                continue
            problem = self.erasures.problem(erased, is_tombstone)
            if problem is not None:
                self.session_id, self.sequence = erased.session_id, erased.sequence
                raise Bad("erased", problem)
        incomparable = uncovered = False
        for kept in self.kept:
            said, mine = kept.open(self.chain), self.checkpoint
            if mine is None or (said.tenant, said.size) != (mine.tenant, mine.size):
                incomparable = True
            elif said.root != mine.root:
                raise Bad("rollback", "a checkpoint of the same size with another root was given")
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
        if unburied:
            return "tombstone_not_covered", "the tombstone of an erased event is not in the bundle"
        if incomparable:
            return "checkpoint_not_covered", "a checkpoint was given that the bundle's says nothing of"
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


def read_inputs(key_path, receipt_paths, checkpoint_paths):
    """The pinned key, receipts and checkpoints that were given, and what could
    not be read of them."""
    unreadable = None
    pinned, receipts, checkpoints = None, [], []
    if key_path is not None:
        try:
            pinned = read_key(key_path)
        except (OSError, ValueError) as problem:
            unreadable = ("unreadable", ascii(str(problem)))
    for path in receipt_paths:
        try:
            receipts.extend(read_receipts(path))
        except (OSError, ValueError) as problem:
            unreadable = unreadable or ("unreadable", ascii(str(problem)))
    for path in checkpoint_paths:
        try:
            checkpoints.append(read_checkpoint(path))
        except (OSError, ValueError) as problem:
            unreadable = unreadable or ("unreadable", ascii(str(problem)))
    return pinned, receipts, checkpoints, unreadable


def verify(path, key_path=None, receipt_paths=(), checkpoint_paths=()):
    """The verdict on a bundle, as the object that --json prints."""
    pinned, receipts, checkpoints, unreadable = read_inputs(key_path, receipt_paths, checkpoint_paths)
    verifier = Verifier(pinned, receipts, checkpoints)
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


# ---------------------------------------------------------------- derived


class Number(str):
    """A JSON number as its writer wrote it."""


def parse_content(text):
    """A payload or metadata that is known to be compact JSON, numbers as text."""
    return json.loads(text, parse_int=Number, parse_float=Number)


ABSENT = object()
WHOLE_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")
COST_DIGITS = 12
COST_MAX = 10**12 * 10**COST_DIGITS


def look_up(*places):
    """The value of the first of the names that is there; a place is a value and
    the names to look for in it, should it be an object."""
    for value, names in places:
        if isinstance(value, dict):
            for name in names:
                if name in value:
                    return value[name]
    return ABSENT


def short_text(value):
    return value if type(value) is str and is_label(value, 256) else None


def whole_number(value):
    if type(value) is not Number or WHOLE_NUMBER.fullmatch(value) is None:
        return None
    number = int(value)
    return number if number < 2**63 else None


def scaled_cost(text):
    """A JSON number in units of 10**-12, half away from zero, clamped."""
    mantissa, _, exponent = text.lower().partition("e")
    sign = -1 if mantissa.startswith("-") else 1
    whole, _, fraction = mantissa.lstrip("-").partition(".")
    digits = (whole + fraction).lstrip("0")
    if not digits:
        return 0
    negative = exponent.startswith("-")
    # No text within the limit of a payload moves its digits by as much as that.
    size = exponent.lstrip("+-").lstrip("0")
    power = 10**10 if len(size) > 10 else int(size or "0")
    # The value in units is 0.digits times ten to the power of `places`.
    places = len(digits) - len(fraction) + (-power if negative else power) + COST_DIGITS
    if places > 25:
        return sign * COST_MAX
    if places < 0:
        return 0
    units = int(digits[:places].ljust(places, "0") or "0")
    if digits[places : places + 1] >= "5":
        units += 1
    return sign * min(units, COST_MAX)


def cost(value):
    if type(value) is not Number:
        return None
    units = scaled_cost(value)
    return Decimal((int(units < 0), tuple(map(int, str(abs(units)))), -COST_DIGITS))


def duration(value):
    if type(value) is not Number:
        return None
    number = float(value)
    return None if number in (float("inf"), float("-inf")) else number


def success(value, event_type):
    if value is ABSENT:
        return {"tool_response": True, "tool_error": False}.get(event_type)
    return value if isinstance(value, bool) else None


def derive(event_type, payload, metadata):
    """The derived columns, in their order, of contents that are not erased."""
    payload, metadata = parse_content(payload), parse_content(metadata)
    usage = payload.get("usage") if isinstance(payload, dict) else None

    def text(*names):
        return short_text(look_up((payload, names)))

    def tokens(*names):
        return whole_number(look_up((usage, names), (payload, names)))

    def span(*names):
        return short_text(look_up((payload, names), (metadata, names)))

    return (
        text("toolName", "tool_name"),
        text("callId", "call_id"),
        text("provider"),
        text("model"),
        tokens("inputTokens", "input_tokens"),
        tokens("outputTokens", "output_tokens"),
        tokens("totalTokens", "total_tokens"),
        cost(look_up((payload, ("costUsd", "cost_usd")))),
        duration(look_up((payload, ("durationMs", "duration_ms")))),
        success(look_up((payload, ("success",))), event_type),
        span("traceId", "trace_id"),
        span("spanId", "span_id"),
    )


# ------------------------------------------------------------------- rows

# Physical type, and members of the logical one. The physical type of a decimal is
# its writer's choice; 38 digits fit no integer.
ColumnType = namedtuple("ColumnType", "physical logical")
STRING_COLUMN = ColumnType("BYTE_ARRAY", (("Type", "String"),))
INTEGER_COLUMN = ColumnType("INT64", (("Type", "None"),))
TIMESTAMP_COLUMN = ColumnType(
    "INT64", (("Type", "Timestamp"), ("isAdjustedToUTC", True), ("timeUnit", "microseconds"))
)
BYTES_COLUMN = ColumnType("BYTE_ARRAY", (("Type", "None"),))
DECIMAL_COLUMN = ColumnType(None, (("Type", "Decimal"), ("precision", 38), ("scale", 12)))
DOUBLE_COLUMN = ColumnType("DOUBLE", (("Type", "None"),))
BOOLEAN_COLUMN = ColumnType("BOOLEAN", (("Type", "None"),))
COLUMNS = {  # name: type, required
    "session_id": (STRING_COLUMN, True),
    "sequence": (INTEGER_COLUMN, True),
    "event_id": (STRING_COLUMN, True),
    "commit_id": (STRING_COLUMN, True),
    "timestamp": (TIMESTAMP_COLUMN, True),
    "timestamp_us": (INTEGER_COLUMN, True),
    "received_at": (TIMESTAMP_COLUMN, True),
    "received_at_us": (INTEGER_COLUMN, True),
    "agent_id": (STRING_COLUMN, True),
    "event_type": (STRING_COLUMN, True),
    "severity": (STRING_COLUMN, True),
    "source_id": (STRING_COLUMN, False),
    "compliance_tag": (STRING_COLUMN, True),
    "pii_types": (STRING_COLUMN, True),
    "redaction_count": (INTEGER_COLUMN, True),
    "redaction_policy": (BYTES_COLUMN, False),
    "payload": (STRING_COLUMN, False),
    "metadata": (STRING_COLUMN, False),
    "salt": (BYTES_COLUMN, False),
    "content_digest": (BYTES_COLUMN, False),
    "prev_hash": (BYTES_COLUMN, False),
    "hash": (BYTES_COLUMN, True),
    "tool_name": (STRING_COLUMN, False),
    "call_id": (STRING_COLUMN, False),
    "provider": (STRING_COLUMN, False),
    "model": (STRING_COLUMN, False),
    "input_tokens": (INTEGER_COLUMN, False),
    "output_tokens": (INTEGER_COLUMN, False),
    "total_tokens": (INTEGER_COLUMN, False),
    "cost_usd": (DECIMAL_COLUMN, False),
    "duration_ms": (DOUBLE_COLUMN, False),
    "success": (BOOLEAN_COLUMN, False),
    "trace_id": (STRING_COLUMN, False),
    "span_id": (STRING_COLUMN, False),
}
DERIVED = list(COLUMNS)[list(COLUMNS).index("tool_name") :]
Row = namedtuple("Row", COLUMNS)
ROWS_AT_ONCE = 256


class NeedsPyarrow(Exception):
    """The rows of an archive cannot be read here."""


def import_pyarrow():
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as problem:
        raise NeedsPyarrow(f"an archive is read with pyarrow, which is not here: {problem}") from None
    return pyarrow


def check_columns(schema):
    """Raises ValueError unless a Parquet schema is that of section 8."""
    columns = [schema.column(index) for index in range(len(schema))]
    if [column.path for column in columns] != list(COLUMNS):
        raise ValueError("other columns")
    for column in columns:
        (physical, logical), required = COLUMNS[column.name]
        found = json.loads(column.logical_type.to_json())
        if found == {"Type": "Int", "bitWidth": 64, "isSigned": True}:
            found = {"Type": "None"}  # says no more than INT64 by itself
        if physical is None:
            fits = column.physical_type in ("FIXED_LEN_BYTE_ARRAY", "BYTE_ARRAY")
        else:
            fits = column.physical_type == physical
        if not fits or any(found.get(name) != value for name, value in logical):
            raise ValueError(f"column {column.name} has another type")
        if column.max_repetition_level or column.max_definition_level != (0 if required else 1):
            raise ValueError(f"column {column.name} may be absent where it must not, or the other way")


def read_rows(data):
    """The rows of a Parquet file, some at a time; raises Bad."""
    pyarrow = import_pyarrow()
    try:
        file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(pyarrow.py_buffer(data)))
        check_columns(file.schema)
        # What a writer notes of its own types can make the library give others.
        types = {
            STRING_COLUMN: pyarrow.string(),
            BYTES_COLUMN: pyarrow.binary(),
            INTEGER_COLUMN: pyarrow.int64(),
            TIMESTAMP_COLUMN: pyarrow.int64(),
            DECIMAL_COLUMN: pyarrow.decimal128(38, COST_DIGITS),
            DOUBLE_COLUMN: pyarrow.float64(),
            BOOLEAN_COLUMN: pyarrow.bool_(),
        }
        batches = file.iter_batches(batch_size=ROWS_AT_ONCE)
        while (batch := next(batches, None)) is not None:
            columns = []
            for name, column in zip(COLUMNS, batch.columns, strict=True):
                column.validate(full=True)
                values = column.cast(types[COLUMNS[name][0]]).to_pylist()
                if COLUMNS[name][1] and None in values:
                    raise ValueError(f"column {name} has a null")
                columns.append(values)
            rows = [Row._make(values) for values in zip(*columns, strict=True)]
            yield rows
    # What the bytes in memory make of the library is not a failure to read them.
    except (pyarrow.ArrowException, OSError, ValueError, TypeError, OverflowError) as problem:
        raise Bad("object", f"not a Parquet file with the columns of section 8: {ascii(str(problem))}") from None


def commit_of(event_id):
    """The event's id with its low ten bits zero."""
    digits = f"{int(event_id.replace('-', ''), 16) & ~1023:032x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def check_row(row, first_of_run):
    """Section 2, for a row of the session and sequence that are due."""

    def must(fits, name):
        if not fits:
            raise Bad("syntax", f"{name} does not have its syntax")

    must(is_match(UUID7, row.event_id), "event_id")
    must(is_match(UUID7, row.commit_id) and row.commit_id == commit_of(row.event_id), "commit_id")
    must(TIME_MIN <= row.timestamp_us <= TIME_MAX, "timestamp_us")
    must(row.timestamp == row.timestamp_us, "timestamp")
    must(TIME_MIN <= row.received_at_us <= TIME_MAX, "received_at_us")
    must(row.received_at == row.received_at_us, "received_at")
    must(is_label(row.agent_id, 256), "agent_id")
    must(is_match(EVENT_TYPE, row.event_type) and len(row.event_type) <= 128, "event_type")
    must(row.severity in SEVERITIES, "severity")
    must(row.source_id is None or is_label(row.source_id, 256), "source_id")
    must(is_label(row.compliance_tag, 64), "compliance_tag")
    must(row.pii_types == "" or is_pii_types(row.pii_types.split(",")), "pii_types")
    must(0 <= row.redaction_count <= 4294967295, "redaction_count")
    must(row.redaction_policy is None or len(row.redaction_policy) == 32, "redaction_policy")
    must(len(row.hash) == 32, "hash")
    must((row.prev_hash is not None) == first_of_run, "prev_hash")
    must(row.prev_hash is None or len(row.prev_hash) == 32, "prev_hash")
    if row.content_digest is None:
        must(row.salt is not None and len(row.salt) == 16, "salt")
        check_json_field("payload", row.payload, 1048576)
        check_json_field("metadata", row.metadata, 65536)
        must(row.metadata.startswith("{"), "metadata")
    else:
        must(len(row.content_digest) == 32, "content_digest")
        if not (row.salt is None and row.payload is None and row.metadata is None):
            raise Bad("syntax", "salt, payload or metadata beside a content_digest")


def row_hash(row, previous_hash, tenant):
    """Section 3, for a row that has its syntax."""
    digest = row.content_digest
    if digest is None:
        content = hashlib.sha256(b"quipu.content.v1\n" + row.salt)
        content.update(row.payload.encode() + b"\n" + row.metadata.encode())
        digest = content.digest()
    lines = [
        "quipu.event.v1",
        previous_hash.hex(),
        tenant,
        row.session_id,
        str(row.sequence),
        row.event_id,
        str(row.timestamp_us),
        str(row.received_at_us),
        row.agent_id,
        row.event_type,
        row.severity,
        row.source_id or "",
        row.compliance_tag,
        row.pii_types,
        str(row.redaction_count),
        (row.redaction_policy or b"").hex(),
        digest.hex(),
    ]
    return hashlib.sha256("\n".join(lines).encode()).digest()


def check_derived(row):
    found = row[-len(DERIVED) :]
    if row.content_digest is not None:
        expected = (None,) * len(DERIVED)
    else:
        expected = derive(row.event_type, row.payload, row.metadata)
    if found != expected:
        name = next(n for n, a, b in zip(DERIVED, found, expected) if a != b)
        raise Bad("derived", f"{name} is not what payload and metadata give")


# ----------------------------------------------------------------- header

HEADER_MEMBERS = {
    "format", "deployment", "tenant", "batch", "prev", "first_leaf", "count", "tree_size", "root",
    "claimed_at", "commit_first", "commit_last", "time_min", "time_max", "key", "bytes", "sha256",
    "staging", "schema", "runs", "blooms",
}  # fmt: skip
RUN_MEMBERS = {"session_id", "first", "last", "hash"}
BLOOM_MEMBERS = {"sessions", "agents", "types"}


def parse_header(data):
    """The header of a batch as a dictionary, blooms decoded; raises ValueError."""
    header = parse_json(data.decode())
    if not isinstance(header, dict) or header.keys() != HEADER_MEMBERS:
        raise ValueError("a header with other members")
    counts = ("batch", "first_leaf", "count", "tree_size", "bytes")
    if (
        header["format"] != "quipu.batch.v1"
        or not is_integer(header["schema"], 1, 1)
        or not is_match(DEPLOYMENT, header["deployment"])
        or not is_match(TENANT, header["tenant"])
        or not all(is_integer(header[name], 0, SEQUENCE_MAX) for name in counts)
        or header["batch"] < 1
        or header["count"] < 1
        or not all(is_hex(header[name], 32) for name in ("prev", "root", "sha256"))
        or any(microseconds(header[name]) is None for name in ("claimed_at", "time_min", "time_max"))
        or not all(is_match(UUID7, header[name]) for name in ("commit_first", "commit_last"))
        or not all(isinstance(header[name], str) for name in ("key", "staging"))
    ):
        raise ValueError("a header with a malformed member")
    check_runs(header["runs"], header["count"])
    blooms = header["blooms"]
    if not isinstance(blooms, dict) or blooms.keys() != BLOOM_MEMBERS:
        raise ValueError("a header with other blooms")
    if not all(isinstance(text, str) for text in blooms.values()):
        raise ValueError("a header with a malformed bloom")
    header["blooms"] = {name: decode_base64(text) for name, text in blooms.items()}
    return header


ObjectRecord = namedtuple("ObjectRecord", "deployment tenant batch revision prev bytes sha256 erased")
RECORD_EVENTS_LIMIT = 10_000


def parse_object_record(text):
    """What the text of an object record says; raises ValueError."""
    if not text.endswith("\n"):
        raise ValueError("an object record without a newline at its end")
    lines = text[:-1].split("\n")
    if len(lines) < 8 or lines[0] != "quipu.object.v1":
        raise ValueError("not an object record")
    deployment, tenant = lines[1:3]
    batch, revision = (decimal(line, 1, SEQUENCE_MAX) for line in lines[3:5])
    prev, length, sha256 = lines[5], decimal(lines[6], 0, SEQUENCE_MAX), lines[7]
    pairs = [tuple(line.split(" ")) for line in lines[8:]]
    if (
        not is_match(DEPLOYMENT, deployment)
        or not is_match(TENANT, tenant)
        or None in (batch, revision, length)
        or not (is_hex(prev, 32) and is_hex(sha256, 32))
        or len(pairs) > RECORD_EVENTS_LIMIT
        or not all(len(pair) == 2 and all(is_match(UUID7, name) for name in pair) for pair in pairs)
        or not all(a[0] < b[0] for a, b in zip(pairs, pairs[1:]))
    ):
        raise ValueError("a malformed object record")
    return ObjectRecord(deployment, tenant, batch, revision, prev, length, sha256, pairs)


def check_runs(runs, count):
    if not isinstance(runs, list):
        raise ValueError("a header whose runs are not a list")
    sessions = set()
    for run in runs:
        if (
            not isinstance(run, dict)
            or run.keys() != RUN_MEMBERS
            or not is_label(run["session_id"], 256)
            or not is_integer(run["first"], 0, SEQUENCE_MAX)
            or not is_integer(run["last"], run["first"], SEQUENCE_MAX)
            or not is_hex(run["hash"], 32)
        ):
            raise ValueError("a header with a malformed run")
        if run["session_id"] in sessions:
            raise ValueError("a header with two runs of a session")
        sessions.add(run["session_id"])
    if sum(run["last"] - run["first"] + 1 for run in runs) != count:
        raise ValueError("a header whose runs are not as long as its count")


def object_key(tenant, number, commit):
    """The key of a batch's object; the day is that of the commit id (UUID v7)."""
    milliseconds = uuid.UUID(commit).int >> 80
    try:
        day = (EPOCH + datetime.timedelta(milliseconds=milliseconds)).date().isoformat()
    except OverflowError:
        raise ValueError("a commit id whose day is past the year 9999") from None
    return f"events/tenant={tenant}/dt={day}/batch-{number:020}.parquet"


def bloom(values):
    """The filter over a set of distinct values."""
    data = bytearray(max(8, (10 * len(values) + 7) // 8))
    for value in values:
        digest = hashlib.sha256(value.encode()).digest()
        for at in range(0, 28, 4):
            bit = int.from_bytes(digest[at : at + 4]) % (8 * len(data))
            data[bit // 8] |= 1 << bit % 8
    return bytes(data)


# ------------------------------------------------------------------ tiles

TILE_WIDTH = 256
TILE = re.compile(r"(entries|0|[1-9][0-9]?)/((?:x[0-9]{3}/)*)([0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?")


def tile_path(level, index):
    groups = [f"{index % 1000:03}"]
    while index := index // 1000:
        groups.append(f"x{index % 1000:03}")
    return f"{level}/{'/'.join(reversed(groups))}"


def parse_tile_path(path):
    """Level, index and width of a tile or an entry bundle, or None."""
    match = TILE.fullmatch(path)
    if match is None:
        return None
    level, index, width = match[1], int(re.sub("[x/]", "", match[2]) + match[3]), match[4]
    if tile_path(level, index) != path.split(".")[0]:
        return None
    if level != "entries" and int(level) > 63 or width is not None and int(width) >= TILE_WIDTH:
        return None
    return level, index, TILE_WIDTH if width is None else int(width)


class Tiles:
    """Compares the tiles of a log with its leaves as they come. Of each level it
    keeps the tile that is not yet full. The first thing wrong is remembered, for
    the verdict's turn comes only after the batches."""

    def __init__(self, archive, tenant):
        self.archive = archive
        self.prefix = f"log/{tenant}/tile/"
        self.open = {"entries": [0, bytearray()]}  # level -> index, bytes
        self.problem = None

    def push(self, entry, leaf):
        self.grow("entries", b"\0\x20" + entry, 34)
        self.grow("0", leaf, 32)

    def grow(self, level, piece, size):
        tile = self.open.setdefault(level, [0, bytearray()])
        tile[1] += piece
        if len(tile[1]) < TILE_WIDTH * size:
            return
        index, data = tile[0], bytes(tile[1])
        self.compare(level, index, data, size)
        tile[:] = [index + 1, bytearray()]
        if level != "entries":
            tree = Tree()
            for at in range(0, len(data), 32):
                tree.push(data[at : at + 32])
            self.grow(str(int(level) + 1), tree.root(), 32)

    def compare(self, level, index, data, size):
        """One tile, as wide as it is now, and all narrower ones that are there."""
        if self.problem is not None:
            return
        path = self.prefix + tile_path(level, index)
        width = len(data) // size
        whole = path if width == TILE_WIDTH else f"{path}.p/{width}"
        try:
            if self.archive.read(whole, len(data)) != data:
                raise Bad("tile", f"{whole} is not what the leaves give")
            for name in self.archive.names(f"{path}.p"):
                if re.fullmatch("[1-9][0-9]{0,2}", name) and int(name) < width:
                    narrow = data[: int(name) * size]
                    if self.archive.read(f"{path}.p/{name}", len(narrow)) != narrow:
                        raise Bad("tile", f"{path}.p/{name} is not what the leaves give")
        except (Bad, OSError) as problem:
            self.problem = problem

    def finish(self, size, unfinished):
        for level, (index, data) in self.open.items():
            if data:
                self.compare(level, index, bytes(data), 34 if level == "entries" else 32)
        if self.problem is not None:
            raise self.problem
        if unfinished:
            return  # what the next batch has left may reach beyond the end
        for key in self.archive.keys(self.prefix):
            tile = parse_tile_path(key.removeprefix(self.prefix))
            if tile is None:
                continue
            level, index, width = tile
            height = 0 if level == "entries" else int(level)
            if (index * TILE_WIDTH + width) << 8 * height > size:
                raise Bad("tile", f"{ascii(key)} reaches beyond the end of the log")


# ---------------------------------------------------------------- archive

NUMBERED = re.compile(r"([0-9]{20})(\.json|\.sig|)")
OBJECT = re.compile(r"events/tenant=([a-z0-9-]{1,63})/dt=[0-9]{4}-[0-9]{2}-[0-9]{2}/batch-([0-9]{20})\.parquet")
OBJECT_RECORD = re.compile("([0-9]{20})-([0-9]{6})")


class Directory:
    """The objects of an archive. Raises OSError where the directory cannot be
    read; an object that is not there is None."""

    def __init__(self, root):
        self.root = root

    def path(self, key):
        return os.path.join(self.root, *key.split("/"))

    def read(self, key, limit=None):
        """The bytes of an object; one more than the limit if it has more."""
        try:
            with open(self.path(key), "rb") as file:
                return file.read() if limit is None else file.read(limit + 1)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    def text(self, key):
        """A note; raises ValueError if it is none, for whatever reason."""
        data = self.read(key, NOTE_LIMIT)
        if data is None:
            raise ValueError(f"{key} is not there")
        return data.decode()

    def names(self, folder):
        try:
            return sorted(os.listdir(self.path(folder)))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def has(self, key):
        return os.path.isfile(self.path(key))

    def keys(self, prefix):
        """Every object below a prefix that ends in a slash, sorted."""

        def fail(problem):
            if not isinstance(problem, (FileNotFoundError, NotADirectoryError)):
                raise problem

        found = []
        for folder, _, names in os.walk(self.path(prefix.rstrip("/")), onerror=fail):
            below = os.path.relpath(folder, self.root).replace(os.sep, "/")
            found.extend(f"{below}/{name}" for name in names)
        return sorted(found, key=os.fsencode)


def is_archive(path):
    return any(os.path.isdir(os.path.join(path, name)) for name in ("log", "events"))


class Log:
    """What is known of a tenant's log while its batches are taken."""

    def __init__(self):
        self.tree = Tree()
        self.header_hash = ZERO_HASH
        self.claimed_at = None
        self.runs = {}  # session -> runs as [first, last, prev_hash, hash]
        self.roots = {}  # size -> root, where a checkpoint was given
        self.erasures = Erasures()
        self.recorded = {}  # id of an erased event -> id of the tombstone that a record names


class ArchiveVerifier:
    """Checks an archive in the order of section 8. What it keeps grows with the
    number of sessions, batches and receipts, never with the number of events."""

    def __init__(self, root, pinned=None, receipts=(), checkpoints=()):
        self.archive = Directory(root)
        self.pinned = pinned
        self.receipts = receipts
        self.kept = checkpoints
        self.wanted = {}  # (tenant, session) -> sequences that receipts name
        for receipt in receipts:
            if (said := receipt.statement) is not None:
                self.wanted.setdefault((said.tenant, said.session_id), set()).add(said.sequence)
        self.sizes = {}  # tenant -> sizes that checkpoints name
        for kept in checkpoints:
            if kept.said is not None:
                self.sizes.setdefault(kept.said.tenant, set()).add(kept.said.size)
        self.found = {}  # (tenant, session, sequence) -> hash
        self.deployment = self.chain = None
        self.receipt_keys = []
        self.logs = {}
        self.sessions = self.events = 0
        self.unfinished = False
        # The place, for a message.
        self.tenant = self.batch = self.session_id = self.sequence = None

    def run(self):
        """The verdict is INVALID by Bad, or the pair of a code and a message of
        what is missing, or None."""
        self.take_identity()
        tenants = [name for name in self.archive.names("log") if is_match(TENANT, name)]
        tenants = [name for name in tenants if self.archive.keys(f"log/{name}/")]
        self.check_objects(tenants)
        for tenant in tenants:
            self.tenant = tenant
            self.take_tenant(tenant)
            self.batch = self.session_id = self.sequence = None
        self.tenant = None
        self.check_kept()
        uncovered = self.check_receipts()
        if self.pinned is None:
            return "no_key", "no key was given from outside"
        if not tenants:
            return "empty", "no tenant has a log"
        if self.unfinished:
            return "unfinished", "the last batch of a tenant is unfinished"
        if uncovered:
            return "receipt_not_covered", "the log does not hold the event of a receipt yet"
        return None

    def take_identity(self):
        data = self.archive.read("log/_identity.json")
        try:
            if data is None:
                raise ValueError("there is no _identity.json")
            record = parse_json(data.decode())
            members = {"format", "deployment", "log_key", "certificates", "rotations"}
            if not isinstance(record, dict) or record.keys() != members:
                raise ValueError("an _identity.json with other members")
            notes = [record["certificates"], record["rotations"]]
            if (
                record["format"] != "quipu.identity.v1"
                or not is_match(DEPLOYMENT, record["deployment"])
                or not isinstance(record["log_key"], str)
                or not all(isinstance(item, list) for item in notes)
                or not all(isinstance(note, str) for item in notes for note in item)
            ):
                raise ValueError("an _identity.json with a malformed member")
            self.deployment = record["deployment"]
            self.chain = KeyChain(self.deployment)
            log_key = parse_log_key(record["log_key"], self.deployment)
            for note in record["rotations"]:
                self.chain.add_rotation(note)
            self.chain.close(log_key, self.pinned)
            for note in record["certificates"]:
                key = parse_certificate(note, self.deployment, self.chain.keys)
                if key not in self.receipt_keys:
                    self.receipt_keys.append(key)
        except ValueError as problem:
            raise Bad("key", str(problem)) from None

    def check_objects(self, tenants):
        """Row 2. A header that has not its syntax names the object of its number;
        what is wrong with it is told when its turn comes."""
        for key in self.archive.keys("events/"):
            match = OBJECT.fullmatch(key)
            data = None
            if match is not None and match[1] in tenants:
                data = self.archive.read(f"log/{match[1]}/batch/{match[2]}.json")
            try:
                named = data is not None and parse_header(data)["key"] == key
            except ValueError:
                named = True
            if not named:
                if match is not None:
                    self.tenant, self.batch = match[1], int(match[2])
                raise Bad("object", f"no header names {ascii(key)}")

    def numbered(self, folder, suffix):
        matches = map(NUMBERED.fullmatch, self.archive.names(folder))
        return sorted(int(match[1]) for match in matches if match and match[2] == suffix)

    def take_tenant(self, tenant):
        log = self.logs[tenant] = Log()
        folder = f"log/{tenant}"
        numbers = self.numbered(f"{folder}/batch", ".json")
        signed = self.numbered(f"{folder}/batch", ".sig")
        for expected, number in enumerate(numbers, 1):
            if number != expected:
                self.batch = expected
                raise Bad("log", "the headers are not numbered from 1 without a gap")
        if signed and signed[-1] > len(numbers):
            self.batch = signed[-1]
            raise Bad("log", "a signature of a header that is not there")
        end = len(numbers)
        unfinished = self.is_unfinished(folder, end)
        if unfinished:
            self.unfinished = True
            end -= 1
        tiles = Tiles(self.archive, tenant)
        self.note_root(tenant, log)
        revisions = self.revisions(folder)
        for number in range(1, end + 1):
            self.batch = number
            self.take_batch(tenant, log, tiles, number, revisions.get(number, []))
            self.session_id = self.sequence = None
        self.batch = None
        tiles.finish(log.tree.size, unfinished)
        self.check_newest(folder, end, len(numbers))
        self.check_continuity(log)
        self.check_erased(log)
        if any(number > len(numbers) for number in revisions):
            self.batch = min(number for number in revisions if number > len(numbers))
            raise Bad("object", "an object record of a batch that is not there")
        self.sessions += len(log.runs)

    def revisions(self, folder):
        """The numbers of the object records of each batch, in the order of their keys."""
        found = {}
        for name in self.archive.names(f"{folder}/object"):
            match = OBJECT_RECORD.fullmatch(name)
            if match is not None and 0 < int(match[1]) < 1 << 64 and int(match[2]) > 0:
                found.setdefault(int(match[1]), []).append(int(match[2]))
        return found

    def check_erased(self, log):
        for erased, is_tombstone, batch in log.erasures.erased:
            problem = log.erasures.problem(erased, is_tombstone)
            named = log.recorded.get(erased.event_id)
            if problem is None and named is not None and named != log.erasures.graves[erased.event_id][1]:
                problem = "an object record names another tombstone"
            if problem is not None:
                self.batch, self.session_id, self.sequence = batch, erased.session_id, erased.sequence
                raise Bad("erased", problem)

    def is_unfinished(self, folder, last):
        """Whether the last batch is as a crash leaves it: what is written later is
        not there, and the newest checkpoint is that of the batch before."""
        if last == 0:
            return False
        signed = self.archive.has(f"{folder}/batch/{last:020}.sig")
        checked = self.archive.has(f"{folder}/checkpoints/{last:020}")
        newest = self.archive.read(f"{folder}/checkpoint", NOTE_LIMIT)
        before = self.archive.read(f"{folder}/checkpoints/{last - 1:020}", NOTE_LIMIT) if last > 1 else None
        return newest == before and (newest is not None or last == 1) and (signed or not checked)

    def note_root(self, tenant, log):
        if log.tree.size in self.sizes.get(tenant, ()):
            log.roots[log.tree.size] = log.tree.root()

    def take_batch(self, tenant, log, tiles, number, revisions):
        place = f"log/{tenant}/batch/{number:020}"
        data = self.archive.read(f"{place}.json") or b""
        try:
            header = parse_header(data)
            said = [header[name] for name in ("deployment", "tenant", "batch", "first_leaf", "key")]
            key = object_key(tenant, number, header["commit_last"])
            if said != [self.deployment, tenant, number, log.tree.size, key]:
                raise ValueError("a header that is not of its place")
            if header["tree_size"] != header["first_leaf"] + header["count"]:
                raise ValueError("a header whose tree size is not first_leaf + count")
        except ValueError as problem:
            raise Bad("header", str(problem)) from None
        if header["prev"] != log.header_hash:
            raise Bad("log", "prev is not the hash of the header before")
        log.header_hash = hashlib.sha256(data).hexdigest()
        holding = self.chain.holding(tenant, header["tree_size"])
        text = f"quipu.header.v1\n{self.deployment}\n{tenant}\n{number}\n{log.header_hash}\n"
        try:
            if open_note(self.archive.text(f"{place}.sig"), [holding])[0] != text:
                raise ValueError("the signature is of something else")
        except ValueError as problem:
            raise Bad("signature", str(problem)) from None
        records = self.take_records(tenant, number, log.header_hash, revisions)
        revision, mapped = self.map_object(header, records)
        before = len(log.erasures.erased)
        with mapped as rows:
            self.take_rows(tenant, log, tiles, header, read_rows(rows))
        gone = {erased.event_id for erased, _, _ in log.erasures.erased[before:]}
        for record in records[:revision]:
            for event, tombstone in record.erased:
                if event not in gone:
                    raise Bad("erased", f"a record names event {event}, which is no erased row of the batch")
                log.recorded[event] = tombstone
        log.claimed_at = microseconds(header["claimed_at"])
        try:
            note = self.archive.text(f"log/{tenant}/checkpoints/{number:020}")
            said = open_held_checkpoint(note, self.chain)
            expected = (self.deployment, tenant, header["tree_size"], bytes.fromhex(header["root"]))
            if said != expected:
                raise ValueError("the checkpoint does not say what the header says")
        except ValueError as problem:
            raise Bad("checkpoint", str(problem)) from None

    def take_records(self, tenant, number, header_hash, revisions):
        """The object records of a batch."""
        if revisions != list(range(1, len(revisions) + 1)):
            raise Bad("object", "the object records are not numbered from 1 without a gap")
        records, previous = [], header_hash
        for revision in revisions:
            try:
                note = self.archive.text(f"log/{tenant}/object/{number:020}-{revision:06}")
                text, _ = open_note(note, self.chain.keys)
                record = parse_object_record(text)
                place = (record.deployment, record.tenant, record.batch, record.revision)
                if place != (self.deployment, tenant, number, revision):
                    raise ValueError("an object record that is not of its place")
                if record.prev != previous:
                    raise ValueError("an object record that does not follow the one before")
            except ValueError as problem:
                raise Bad("object", str(problem)) from None
            previous = hashlib.sha256(text.encode()).hexdigest()
            records.append(record)
        return records

    def map_object(self, header, records):
        """The object of a batch, and the number of the record that names it (0: the
        header does)."""
        named = [(header["bytes"], header["sha256"])] + [(r.bytes, r.sha256) for r in records]
        try:
            with open(self.archive.path(header["key"]), "rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size == 0 or size not in (length for length, _ in named):
                    raise Bad("object", "the object has another length")
                data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise Bad("object", "the object is not there") from None
        digest = hashlib.sha256(data).hexdigest()
        found = [revision for revision, (_, sha256) in enumerate(named) if sha256 == digest]
        if not found:
            raise Bad("object", "the object has another SHA-256")
        return found[-1], Mapped(data)

    def take_rows(self, tenant, log, tiles, header, batches):
        runs = iter(header["runs"])
        run = next(runs, None)
        due = run and run["first"]
        previous = b""
        ends = []  # the last hash of each run
        commits, times = [], []
        agents, types = set(), set()
        for rows in batches:
            for row in rows:
                self.session_id = self.sequence = None
                if run is None or (row.session_id, row.sequence) != (run["session_id"], due):
                    raise Bad("header", "a row that is not the next of the header's runs")
                self.session_id, self.sequence = row.session_id, row.sequence
                first_of_run = due == run["first"]
                check_row(row, first_of_run)
                if first_of_run:
                    previous = row.prev_hash
                    if row.sequence == 0 and previous != bytes(32):
                        raise Bad("prev_hash", "the first event of a session names one before it")
                    first_hash = previous
                if row_hash(row, previous, tenant) != row.hash:
                    raise Bad("hash", "hash is not that of the event")
                check_derived(row)
                previous = row.hash
                digest = row.content_digest and row.content_digest.hex()
                log.erasures.see(
                    row.event_id, row.session_id, row.sequence, row.event_type, row.hash.hex(),
                    digest, row.payload, header["batch"],
                )  # fmt: skip
                if row.sequence in self.wanted.get((tenant, row.session_id), ()):
                    self.found.setdefault((tenant, row.session_id, row.sequence), row.hash.hex())
                leaf = leaf_hash(row.hash)
                log.tree.push(leaf)
                tiles.push(row.hash, leaf)
                self.note_root(tenant, log)
                self.events += 1
                agents.add(row.agent_id)
                types.add(row.event_type)
                due += 1
                if due > run["last"]:
                    ends.append(row.hash.hex())
                    add_run(log.runs.setdefault(row.session_id, []), run, first_hash, row.hash)
                    run = next(runs, None)
                    due = run and run["first"]
            commits.extend(pick(row.commit_id for row in rows))
            times.extend(pick(row.timestamp_us for row in rows))
            commits, times = pick(commits), pick(times)
        self.session_id = self.sequence = None
        if run is not None:
            raise Bad("header", "rows of the header's runs are missing")
        if ends != [run["hash"] for run in header["runs"]]:
            raise Bad("header", "the hash of a run is not that of its last row")
        if commits != [header["commit_first"], header["commit_last"]]:
            raise Bad("header", "commit_first or commit_last is not what the rows give")
        if times != [microseconds(header["time_min"]), microseconds(header["time_max"])]:
            raise Bad("header", "time_min or time_max is not what the rows give")
        distinct = {"sessions": {run["session_id"] for run in header["runs"]}, "agents": agents, "types": types}
        if header["blooms"] != {name: bloom(values) for name, values in distinct.items()}:
            raise Bad("header", "a bloom filter is not what the rows give")
        if log.tree.root().hex() != header["root"]:
            raise Bad("header", "root is not what the rows give")

    def check_newest(self, folder, end, numbers):
        """Row 14; `numbers` is how many headers there are, unfinished or not."""
        checkpoints = self.numbered(f"{folder}/checkpoints", "")
        if checkpoints and checkpoints[-1] > numbers:
            self.batch = checkpoints[-1]
            raise Bad("checkpoint", "a checkpoint of a batch that is not there")
        newest = self.archive.read(f"{folder}/checkpoint", NOTE_LIMIT)
        last = self.archive.read(f"{folder}/checkpoints/{end:020}", NOTE_LIMIT) if end else None
        if newest != last:
            raise Bad("checkpoint", "`checkpoint` is not the newest checkpoint")

    def check_continuity(self, log):
        for session_id in sorted(log.runs, key=str.encode):
            self.session_id = session_id
            due, previous = 0, bytes(32)
            for first, last, prev_hash, last_hash in sorted(log.runs[session_id]):
                self.sequence = first
                if first != due:
                    raise Bad("sequence", f"expected sequence {due}")
                if prev_hash != previous:
                    raise Bad("prev_hash", "prev_hash is not the hash of the event before")
                due, previous = last + 1, last_hash
        self.session_id = self.sequence = None

    def check_kept(self):
        for kept in self.kept:
            said = kept.open(self.chain)
            self.tenant = said.tenant
            log = self.logs.get(said.tenant)
            if log is None or log.tree.size < said.size:
                raise Bad("rollback", f"the log of a checkpoint that was given has no {said.size} leaves")
            if log.roots[said.size] != said.root:
                raise Bad("rollback", "a checkpoint that was given has another root")
            self.tenant = None

    def check_receipts(self):
        """Whether a receipt is of an event that the archive does not hold yet."""
        uncovered = False
        for receipt in self.receipts:
            self.tenant = self.session_id = self.sequence = None
            if (said := receipt.statement) is not None:
                self.tenant, self.session_id, self.sequence = said.tenant, said.session_id, said.sequence
            if receipt.problem is not None:
                raise Bad("receipt", receipt.problem)
            try:
                text, _ = open_note(receipt.note, self.receipt_keys)
                said = parse_statement(text, "quipu.receipt.v1")
            except ValueError as problem:
                raise Bad("receipt", str(problem)) from None
            found = self.found.get((said.tenant, said.session_id, said.sequence))
            if found is not None:
                if found != said.hash:
                    raise Bad("receipt", "the log holds another event than the receipt's")
                continue
            uncovered = True
            claimed_at = self.logs[said.tenant].claimed_at if said.tenant in self.logs else None
            if claimed_at is not None and claimed_at - said.time > DAY:
                raise Bad("receipt", "the event of a receipt was not archived within 24 hours")
        self.tenant = self.session_id = self.sequence = None
        return uncovered


class Mapped:
    """A mapped file, closed when no more rows are read of it."""

    def __init__(self, data):
        self.data = data

    def __enter__(self):
        return self.data

    def __exit__(self, *_):
        try:
            self.data.close()
        except BufferError:
            pass  # a failure still holds the rows; it goes when that does


def pick(values):
    """The lowest and the highest of some values, as a list."""
    values = list(values)
    return [min(values), max(values)] if values else []


def add_run(runs, run, prev_hash, last_hash):
    """Adds a run to those of its session, as one with the run that it continues."""
    if runs and runs[-1][1] + 1 == run["first"] and runs[-1][3] == prev_hash:
        runs[-1][1], runs[-1][3] = run["last"], last_hash
    else:
        runs.append([run["first"], run["last"], prev_hash, last_hash])


def verify_archive(path, key_path=None, receipt_paths=(), checkpoint_paths=()):
    """The verdict on an archive, as the object that --json prints."""
    pinned, receipts, checkpoints, unreadable = read_inputs(key_path, receipt_paths, checkpoint_paths)
    verifier = ArchiveVerifier(path, pinned, receipts, checkpoints)
    verdict, code, message = "VALID", None, None
    place = dict.fromkeys(("tenant", "batch", "session_id", "sequence"))
    try:
        missing = verifier.run()
        missing = unreadable or missing
        if missing is not None:
            verdict = "INCOMPLETE"
            code, message = missing
    except Bad as bad:
        verdict, code, message = "INVALID", bad.code, bad.message
        place = {name: getattr(verifier, name) for name in place}
    except (OSError, NeedsPyarrow) as problem:
        verdict, code, message = "INCOMPLETE", "unreadable", ascii(str(problem))
    logs = [
        {"tenant": tenant, "tree_size": log.tree.size, "root": log.tree.root().hex()}
        for tenant, log in verifier.logs.items()
    ]
    return {
        "verdict": verdict,
        "code": code,
        **place,
        "message": message,
        "sessions": verifier.sessions,
        "events": verifier.events,
        # What is known of a log that is INVALID is nothing to keep.
        "logs": [] if verdict == "INVALID" or code == "unreadable" else logs,
    }


def describe_archive(result):
    counts = f"{result['sessions']} sessions, {result['events']} events"
    if result["verdict"] == "VALID":
        text = f"VALID {counts}"
    else:
        names = ("tenant", "batch", "session_id", "sequence")
        place = [f"{name} {json.dumps(result[name])}" for name in names if result[name] is not None]
        where = f" at {', '.join(place)}" if place else ""
        text = f"{result['verdict']} {result['code']}{where}: {result['message']} ({counts} verified)"
    logs = [f"\n{log['tenant']}: tree size {log['tree_size']}, root {log['root']}" for log in result["logs"]]
    return text + "".join(logs)


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
    parser = Parser(description="Verifies a Quipu evidence bundle or archive.", allow_abbrev=False)
    parser.add_argument("path", nargs="?", metavar="BUNDLE or DIRECTORY")
    parser.add_argument("--key", metavar="FILE", help="the log key, known from outside")
    parser.add_argument("--receipt", metavar="FILE", action="append", default=[])
    parser.add_argument("--checkpoint", metavar="FILE", action="append", default=[])
    parser.add_argument("--proof", metavar="FILE", help="check a proof for one event")
    parser.add_argument("--hash", metavar="HEX", help="the hash of that event")
    parser.add_argument("--json", action="store_true", help="print the verdict as JSON")
    parser.add_argument("--vectors", metavar="FILE", help="check a file of test vectors")
    options = parser.parse_args(arguments)
    if [options.path, options.proof, options.vectors].count(None) != 2:
        parser.error("give one of a BUNDLE, a DIRECTORY, --proof or --vectors")
    if options.path is None and (options.receipt or options.checkpoint):
        parser.error("--receipt and --checkpoint need a BUNDLE or a DIRECTORY")
    if (options.proof is None) != (options.hash is None):
        parser.error("--proof and --hash go together")
    if options.vectors is not None:
        if options.key is not None or options.json:
            parser.error("--vectors stands alone")
        return check_vectors(options.vectors, print)
    if options.proof is not None:
        if not is_hex(options.hash, 32):
            parser.error("--hash is not a hash in hex")
        result, text = verify_proof(options.proof, options.hash, options.key), describe_proof
    elif is_archive(options.path):
        result = verify_archive(options.path, options.key, options.receipt, options.checkpoint)
        text = describe_archive
    else:
        result = verify(options.path, options.key, options.receipt, options.checkpoint)
        text = describe
    print(json.dumps(result) if options.json else text(result))
    return {"VALID": 0, "INVALID": 1, "INCOMPLETE": 2}[result["verdict"]]


if __name__ == "__main__":
    sys.exit(main())
