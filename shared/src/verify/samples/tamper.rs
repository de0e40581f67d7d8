//! Every way to tamper with a bundle that its codes tell apart, and what the verdict must be.

use serde_json::{Map, Value, json};

use super::{SESSIONS, Sample, Signers, bury_as, receipt, sample, session, tenant, time};
use crate::bundle;
use crate::erasure::{self, Tombstone};
use crate::ids::{CommitId, EventHash, Seq, TenantId};
use crate::note::NoteSigner;
use crate::statement::{Says, Standing};
use crate::verify::{Code, Verdict};

/// A bundle with what it is held against, and what a verifier must say.
#[derive(Debug, Clone)]
pub struct Tampered {
    /// What was done, in words that fit a file name.
    pub name: String,
    /// The bundle; mostly text.
    pub bundle: Vec<u8>,
    /// Content of the key file, if one is given.
    pub key: Option<String>,
    /// Contents of files of receipts.
    pub receipts: Vec<String>,
    /// Contents of files of checkpoints.
    pub checkpoints: Vec<String>,
    /// The verdict.
    pub verdict: Verdict,
    /// Its code, unless it is VALID.
    pub code: Option<Code>,
}

// Where the records of a sample stand.
const A: usize = 1;
const EVENT: usize = 2;
const ERASED: usize = 4;
const LAST: usize = 5;
const HEAD: usize = 6;
const B: usize = 7;
const HEAD_B: usize = 10;
const BURIED: usize = 11;
const END: usize = 14;

struct Cases {
    good: Sample,
    signers: Signers,
    all: Vec<Tampered>,
}

/// A sample of this seed, tampered with in every way; and some changes that must not matter.
pub fn tampered_bundles(seed: u8) -> Vec<Tampered> {
    let mut cases = Cases { good: sample(seed, &tenant()), signers: Signers::new(seed), all: Vec::new() };
    assert_eq!(cases.good.lines.len(), END + 1, "the sample has the layout that the cases count on");
    cases.harmless();
    cases.fields();
    cases.syntax();
    cases.records();
    cases.ends();
    cases.keys(seed);
    cases.heads(seed);
    cases.receipts(seed);
    cases.erasures(seed);
    cases.all
}

type Object = Map<String, Value>;

fn edited(line: &str, edit: impl FnOnce(&mut Object)) -> String {
    let mut object: Object = serde_json::from_str(line).expect("a line of a good bundle");
    edit(&mut object);
    format!("{}\n", Value::Object(object))
}

impl Cases {
    fn add(
        &mut self,
        name: impl Into<String>,
        bundle: impl Into<Vec<u8>>,
        code: Option<Code>,
    ) -> &mut Tampered {
        let verdict = match code {
            None => Verdict::Valid,
            Some(Code::NoKey | Code::ReceiptNotCovered | Code::TombstoneNotCovered | Code::Unreadable) => {
                Verdict::Incomplete
            }
            Some(_) => Verdict::Invalid,
        };
        let (name, key) = (name.into(), Some(self.good.key.clone()));
        let (receipts, checkpoints) = (Vec::new(), Vec::new());
        self.all.push(Tampered { name, bundle: bundle.into(), key, receipts, checkpoints, verdict, code });
        self.all.last_mut().expect("one was just added")
    }

    fn with(&self, index: usize, line: &str) -> String {
        let mut lines = self.good.lines.clone();
        line.clone_into(&mut lines[index]);
        lines.concat()
    }

    fn edit(&self, index: usize, member: &str, value: Value) -> String {
        let edit = |object: &mut Object| drop(object.insert(member.to_owned(), value));
        self.with(index, &edited(&self.good.lines[index], edit))
    }

    fn harmless(&mut self) {
        let good = self.good.text();
        self.add("untouched", good.clone(), None);
        // serde_json sorts members: their order is free.
        let sorted: String = self.good.lines.iter().map(|line| edited(line, |_| {})).collect();
        self.add("members in another order", sorted, None);
        self.add("white space between tokens", good.replace(",\"", " , \""), None);
        self.add("escapes that need not be", good.replace("\"agent/1\"", "\"\\u0061gent\\/1\""), None);
        let moved = [
            &self.good.lines[..A],
            &self.good.lines[B..END],
            &self.good.lines[A..B],
            &self.good.lines[END..],
        ];
        self.add("sessions in another order", moved.concat().concat(), None);
    }

    /// Each field of an event edited, with its hash left as it was.
    fn fields(&mut self) {
        let other = json!({
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
            "redaction_policy": "ef".repeat(32),
            "salt": "ff".repeat(16),
            "payload": "{\"n\":9}",
            "metadata": "{\"a\":1}",
            "hash": "12".repeat(32),
        });
        for (member, value) in other.as_object().into_iter().flatten() {
            let bundle = self.edit(EVENT, member, value.clone());
            self.add(format!("edited {member}"), bundle, Some(Code::Hash));
        }
        let zeros = "0".repeat(64);
        for (name, index, member, value, code) in [
            ("edited sequence", EVENT + 1, "sequence", json!(2), Code::Sequence),
            ("edited prev_hash", EVENT + 1, "prev_hash", json!(zeros), Code::PrevHash),
            ("edited prev_hash of the first", EVENT, "prev_hash", json!("12".repeat(32)), Code::PrevHash),
            (
                "edited digest of an erased event",
                ERASED,
                "content_digest",
                json!("12".repeat(32)),
                Code::Hash,
            ),
            ("renamed session", A, "session_id", json!("run 2"), Code::Hash),
            ("renamed tenant", 0, "tenant", json!("other"), Code::Hash),
            ("another deployment", 0, "deployment", json!("other"), Code::Key),
            ("payload spelled otherwise", EVENT, "payload", json!("{\"n\":0,\"v\":1.0}"), Code::Hash),
        ] {
            let bundle = self.edit(index, member, value);
            self.add(name, bundle, Some(code));
        }
        let created = self.edit(0, "created_at", json!("2026-02-08T10:00:11.000000Z"));
        self.add("another created_at, which nothing signs", created, None);
    }

    fn syntax(&mut self) {
        for (name, member, value) in [
            ("time without its fraction", "timestamp", json!("2026-02-08T10:00:00Z")),
            ("time with an offset", "timestamp", json!("2026-02-08T10:00:00.000000+00:00")),
            ("time of a leap second", "received_at", json!("2016-12-31T23:59:60.000000Z")),
            ("id of version 4", "event_id", json!("019c3c1e-0000-4000-8000-000000000001")),
            ("id in capitals", "event_id", json!("019C3C1E-0000-7000-8000-000000000001")),
            ("id with a prefix", "event_id", json!("evt_019c3c1e-0000-7000-8000-000000000001")),
            ("empty agent", "agent_id", json!("")),
            ("agent with a newline", "agent_id", json!("a\ndefault")),
            ("type with an empty word", "event_type", json!("a..b")),
            ("unknown severity", "severity", json!("fatal")),
            ("empty source", "source_id", json!("")),
            ("tag too long", "compliance_tag", json!("t".repeat(65))),
            ("pii types out of order", "pii_types", json!(["b", "a"])),
            ("pii types as text", "pii_types", json!("email")),
            ("pii type with a comma", "pii_types", json!(["a,b"])),
            ("count as text", "redaction_count", json!("0")),
            ("count past 32 bits", "redaction_count", json!(4_294_967_296u64)),
            ("policy in capitals", "redaction_policy", json!("AB".repeat(32))),
            ("salt too short", "salt", json!("00".repeat(15))),
            ("payload with space", "payload", json!("{\"a\": 1}")),
            ("payload with a member twice", "payload", json!("{\"a\":1,\"\\u0061\":1}")),
            ("payload with half a pair", "payload", json!("\"\\ud800\"")),
            ("payload too deep", "payload", json!("[".repeat(129) + &"]".repeat(129))),
            ("payload too long", "payload", json!(format!("\"{}\"", "a".repeat(1 << 20)))),
            ("metadata that is a list", "metadata", json!("[]")),
            ("erased and not", "content_digest", json!("12".repeat(32))),
            ("neither erased nor not", "salt", Value::Null),
            ("sequence past 63 bits", "sequence", json!(1u64 << 63)),
            ("hash too long", "hash", json!("12".repeat(33))),
            ("a member more", "more", json!(1)),
            ("another kind", "kind", json!("Event")),
        ] {
            let bundle = self.edit(EVENT, member, value);
            self.add(name, bundle, Some(Code::Syntax));
        }
        let event = self.good.lines[EVENT].clone();
        for (name, line) in [
            ("a member less", edited(&event, |object| drop(object.remove("source_id")))),
            ("a member twice", event.replacen('{', "{\"severity\":\"info\",", 1)),
            ("a member twice by escapes", event.replacen('{', "{\"\\u0073everity\":\"info\",", 1)),
            ("space before a line", format!(" {event}")),
            ("space after a line", event.replace("}\n", "} \n")),
            ("carriage return", event.replace('\n', "\r\n")),
            ("byte order mark", format!("\u{feff}{event}")),
            ("an empty line", format!("\n{event}")),
            ("a number with a leading zero", event.replace("\"sequence\":0", "\"sequence\":00")),
            ("a number as a fraction", event.replace("\"sequence\":0", "\"sequence\":0.0")),
            ("minus zero", event.replace("\"sequence\":0", "\"sequence\":-0")),
            ("two objects on a line", event.replace('\n', "{}\n")),
            ("a list", format!("[{}]\n", event.trim_end())),
        ] {
            let bundle = self.with(EVENT, &line);
            self.add(name, bundle, Some(Code::Syntax));
        }
        let mut bytes = self.good.text().into_bytes();
        let at = self.good.lines[..EVENT].concat().len() + event.find("agent/1").expect("an agent");
        bytes[at] = 0xff;
        self.add("bytes that are not UTF-8", bytes, Some(Code::Syntax));
        let long = event.replacen('{', &format!("{{{}", " ".repeat(crate::limits::BUNDLE_LINE_BYTES_MAX)), 1);
        let bundle = self.with(EVENT, &long);
        self.add("a line too long", bundle, Some(Code::Syntax));
        for (member, value) in [
            ("format", json!("quipu.bundle.v2")),
            ("deployment", json!("A")),
            ("tenant", json!("a.b")),
            ("created_at", json!("2026-02-08")),
            ("certificates", json!([])),
            ("log_key", Value::Null),
        ] {
            let bundle = self.edit(0, member, value);
            self.add(format!("bad {member}"), bundle, Some(Code::Syntax));
        }
    }

    /// Records dropped, doubled, swapped with the next, inserted.
    fn records(&mut self) {
        use Code::{Empty, Head, Sequence, Syntax, Truncated};
        let dropped = [
            Syntax, Syntax, Sequence, Sequence, Sequence, Head, Syntax, Syntax, Sequence, Head, Syntax,
            Syntax, Empty, Syntax, Truncated,
        ];
        let doubled = [
            Syntax, Syntax, Sequence, Sequence, Sequence, Sequence, Syntax, Syntax, Sequence, Sequence,
            Syntax, Syntax, Sequence, Syntax, Truncated,
        ];
        for index in 0..=END {
            let mut lines = self.good.lines.clone();
            let line = lines.remove(index);
            self.add(format!("dropped line {index}"), lines.concat(), Some(dropped[index]));
            let mut lines = self.good.lines.clone();
            lines.insert(index, line);
            self.add(format!("doubled line {index}"), lines.concat(), Some(doubled[index]));
            if index < END {
                let code = match index {
                    2..=4 | 8 => Sequence,
                    5 | 9 => Head,
                    12 => Empty,
                    _ => Syntax,
                };
                let mut lines = self.good.lines.clone();
                lines.swap(index, index + 1);
                self.add(format!("swapped line {index}"), lines.concat(), Some(code));
            }
        }
        let stranger = &sample(0x77, &tenant()).lines;
        let bundle = self.with(EVENT + 1, &stranger[EVENT + 1]);
        self.add("an event of another history", bundle, Some(Code::PrevHash));
        let bundle = self.with(EVENT, &stranger[EVENT]);
        self.add("a first event of another history", bundle, Some(Code::PrevHash));
        let other_tenant = &sample(1, &TenantId::parse("other").expect("a tenant's name")).lines;
        let bundle = self.with(EVENT, &other_tenant[EVENT]);
        self.add("a first event of another tenant", bundle, Some(Code::Hash));
        let bundle = self.with(B + 1, &self.good.lines[EVENT]);
        self.add("a first event of another session", bundle, Some(Code::Hash));
        let twice = [&self.good.lines[..END], &self.good.lines[B..]].concat().concat();
        self.add("a session twice", twice, Some(Syntax));
    }

    fn ends(&mut self) {
        for count in 0..=END {
            let cut = self.good.lines[..count].concat();
            self.add(format!("cut before line {count}"), cut.clone(), Some(Code::Truncated));
            let line = &self.good.lines[count];
            let half = line.floor_char_boundary(line.len() / 2);
            self.add(format!("cut inside line {count}"), cut + &line[..half], Some(Code::Truncated));
        }
        let good = self.good.text();
        self.add("no newline at the end", good.trim_end(), Some(Code::Truncated));
        for (name, extra) in [("a newline", "\n"), ("a space", " "), ("an object", "{}\n")] {
            self.add(format!("{name} after the end"), format!("{good}{extra}"), Some(Code::Truncated));
        }
        for (name, member, value, code) in [
            ("a session fewer", "sessions", json!(2), Code::Count),
            ("a session more", "sessions", json!(4), Code::Count),
            ("an event fewer", "events", json!(6), Code::Count),
            ("an event more", "events", json!(8), Code::Count),
            ("a count as a fraction", "events", json!(7.0), Code::Syntax),
            ("a count below zero", "events", json!(-7), Code::Syntax),
        ] {
            let bundle = self.edit(END, member, value);
            self.add(format!("{name} counted"), bundle, Some(code));
        }
        let mut empty = String::new();
        bundle::push_session(&mut empty, &session("empty"));
        let lines = self.good.lines.clone();
        let before = [lines[0].clone(), empty.clone(), lines[A..].concat()].concat();
        self.add("an empty session first", before, Some(Code::Empty));
        let mut end = String::new();
        bundle::push_end(&mut end, 4, 7);
        self.add("an empty session last", lines[..END].concat() + &empty + &end, Some(Code::Empty));
        let mut nothing = lines[0].clone();
        bundle::push_end(&mut nothing, 0, 0);
        self.add("no session", nothing, Some(Code::Empty));
    }

    fn keys(&mut self, seed: u8) {
        let other = sample(seed ^ 0x40, &tenant());
        let other_signers = Signers::new(seed ^ 0x40);
        self.add("all of it by other keys", other.text(), Some(Code::Key));
        self.add("all of it by other keys, none given", other.text(), Some(Code::NoKey)).key = None;
        let good = self.good.text();
        self.add("no key given", good.clone(), Some(Code::NoKey)).key = None;
        self.add("a key file that holds none", good.clone(), Some(Code::Unreadable)).key =
            Some("x".to_owned());
        let spaced = format!("\r\n {} \t\n", self.good.key);
        self.add("a key file with space around", good, None).key = Some(spaced);
        let broken = self.edit(EVENT, "severity", json!("warn"));
        self.add("edited, no key given", broken.clone(), Some(Code::Hash)).key = None;
        self.add("edited, a bad key file", broken, Some(Code::Hash)).key = Some(String::new());
        let mine = self.signers.log.verifier().to_string();
        for (name, key) in [
            ("receipt key", self.signers.receipt.verifier().to_string()),
            ("key with another id", mine.replacen('+', "+0", 1)),
            ("key with its id in capitals", mine.to_uppercase()),
            ("key with a space", format!("{mine} ")),
            ("nothing", String::new()),
        ] {
            let bundle = self.edit(0, "log_key", json!(key));
            self.add(format!("{name} for a log key"), bundle, Some(Code::Key));
        }
        let good = self.signers.certificate();
        let foreign = other_signers.certificate();
        let text = &good[..=good.find("\n\n").expect("a note")];
        for (name, note) in [
            ("by another log key", foreign.clone()),
            ("by the receipt key", self.signers.receipt.sign(text)),
            ("of another purpose", self.signers.log.sign(&text.replace("\nreceipt\n", "\nlog\n"))),
            ("of another deployment", self.signers.log.sign(&text.replace("\nledger", "\nother"))),
            ("of another version", self.signers.log.sign(&text.replace("key.v1", "key.v2"))),
            ("with a line more", self.signers.log.sign(&format!("{text}more\n"))),
            ("unsigned", text.to_owned()),
            ("edited", good.replace("\n1770544800000000\n", "\n1770544800000001\n")),
            ("with a line after it", format!("{good}\n")),
            ("with another dash", good.replace('—', "-")),
        ] {
            let bundle = self.edit(0, "certificates", json!([good.clone(), note]));
            self.add(format!("certificate {name}"), bundle, Some(Code::Key));
        }
        let both = self.edit(0, "certificates", json!([good.clone(), good]));
        self.add("a certificate twice", both, None);
    }

    fn standing(&self, name: &str, sequence: u64) -> Standing {
        let first = if name == SESSIONS[0].0 { EVENT } else { B + 1 };
        let line: Object =
            serde_json::from_str(&self.good.lines[first + sequence as usize]).expect("the line of an event");
        let hash = line["hash"].as_str().and_then(EventHash::from_hex).expect("its hash");
        let sequence = Seq::new(sequence).expect("small");
        Standing { tenant: tenant(), session_id: session(name), sequence, hash, time: time(2_000_000) }
    }

    fn heads(&mut self, seed: u8) {
        let other = Signers::new(seed ^ 0x40);
        let right = self.standing(SESSIONS[0].0, 3);
        let said = |edit: &dyn Fn(&mut Standing)| {
            let mut standing = right.clone();
            edit(&mut standing);
            standing
        };
        let mine = &self.signers.receipt;
        let good = right.sign(Says::Head, mine);
        let bad_line = |signer: &NoteSigner| {
            let note = signer.sign("something else\n");
            note[note.find('—').expect("a signature")..].to_owned()
        };
        let cases = [
            ("by another receipt key", right.sign(Says::Head, &other.receipt), Some(Code::Head)),
            ("by the log key", right.sign(Says::Head, &self.signers.log), Some(Code::Head)),
            ("that is a receipt", right.sign(Says::Receipt, mine), Some(Code::Head)),
            ("of an earlier event", self.standing(SESSIONS[0].0, 2).sign(Says::Head, mine), Some(Code::Head)),
            (
                "of a later event",
                said(&|s| s.sequence = Seq::new(4).expect("small")).sign(Says::Head, mine),
                Some(Code::Head),
            ),
            (
                "with another hash",
                said(&|s| s.hash = EventHash([7; 32])).sign(Says::Head, mine),
                Some(Code::Head),
            ),
            ("of another session", self.standing(SESSIONS[1].0, 1).sign(Says::Head, mine), Some(Code::Head)),
            (
                "of another tenant",
                said(&|s| s.tenant = TenantId::default_tenant()).sign(Says::Head, mine),
                Some(Code::Head),
            ),
            ("unsigned", good[..=good.find("\n\n").expect("a note")].to_owned(), Some(Code::Head)),
            ("edited", good.replace("\n3\n", "\n4\n"), Some(Code::Head)),
            (
                "with a second signature of its key that is bad",
                good.clone() + &bad_line(mine),
                Some(Code::Head),
            ),
            (
                "with a bad signature of the log key, passed over",
                good.clone() + &bad_line(&self.signers.log),
                None,
            ),
            ("with a signature of a stranger, passed over", good.clone() + &bad_line(&other.receipt), None),
            ("signed by 17", good + &bad_line(&other.receipt).repeat(16), Some(Code::Head)),
            ("of another time", said(&|s| s.time = time(-1)).sign(Says::Head, mine), None),
        ];
        for (name, note, code) in cases {
            let bundle = self.edit(HEAD, "note", json!(note));
            self.add(format!("a head {name}"), bundle, code);
        }
        let bundle = self.with(HEAD, &self.good.lines[HEAD_B]);
        self.add("the head of the other session", bundle, Some(Code::Head));
        let bundle = self.with(LAST, "");
        self.add("the tail cut off", bundle, Some(Code::Head));
    }

    fn receipts(&mut self, seed: u8) {
        let good = self.good.text();
        let all = self.good.receipts.clone();
        let reply = format!(r#"{{"ingested":6,"events":[{{"x":1.5}}],"receipts":[{}]}}"#, all.join(","));
        self.add("the reply of an append", good.clone(), None).receipts = vec![reply];
        let list = format!("\n [{}] ", all.join(" , "));
        self.add("a list of receipts", good.clone(), None).receipts = vec![list];
        self.add("files of one receipt", good.clone(), None).receipts = all;

        // The tail cut off, and an older head in its place: right in itself, and only a receipt shows it.
        let older = self.standing(SESSIONS[0].0, 2).sign(Says::Head, &self.signers.receipt);
        let mut lines = self.good.lines.clone();
        lines[HEAD].clear();
        bundle::push_head(&mut lines[HEAD], &older);
        lines[END].clear();
        bundle::push_end(&mut lines[END], 3, 6);
        lines.remove(LAST);
        let cut = lines.concat();
        self.add("an older state", cut.clone(), None);
        let last = self.standing(SESSIONS[0].0, 3);
        let mine = |standing: &Standing, key: &NoteSigner| vec![receipt(standing, key)];
        let given = mine(&last, &self.signers.receipt);
        self.add("an older state held against a receipt", cut, Some(Code::Receipt)).receipts = given;

        let absent = Standing { session_id: session("absent"), ..last.clone() };
        let foreign = Standing { tenant: TenantId::default_tenant(), ..last.clone() };
        let wrong = Standing { hash: EventHash([7; 32]), ..last.clone() };
        let beyond = Standing { sequence: Seq::new(9).expect("small"), ..last.clone() };
        let other = Signers::new(seed ^ 0x40);
        let (receipt_key, log_key) = (&self.signers.receipt, &self.signers.log);
        let note = last.sign(Says::Receipt, receipt_key);
        let object = receipt(&last, receipt_key);
        let cases = [
            ("of an absent session", mine(&absent, receipt_key), Some(Code::ReceiptNotCovered)),
            ("of another tenant", mine(&foreign, receipt_key), Some(Code::ReceiptNotCovered)),
            ("with another hash", mine(&wrong, receipt_key), Some(Code::Receipt)),
            ("of an event that is not there", mine(&beyond, receipt_key), Some(Code::Receipt)),
            ("of an absent session by another key", mine(&absent, &other.receipt), Some(Code::Receipt)),
            ("by another key", mine(&last, &other.receipt), Some(Code::Receipt)),
            ("by the log key", mine(&last, log_key), Some(Code::Receipt)),
            ("that is a head", vec![last.sign(Says::Head, receipt_key)], Some(Code::Receipt)),
            ("as a bare note", vec![note.clone()], None),
            ("as a note with a line after it", vec![format!("{note}\n")], Some(Code::Receipt)),
            ("that is rubbish", vec!["rubbish".to_owned()], Some(Code::Receipt)),
            ("that is nothing", vec![String::new()], Some(Code::Receipt)),
            ("that is an empty list", vec!["[]".to_owned()], Some(Code::Receipt)),
            ("that is a list of numbers", vec!["[1]".to_owned()], Some(Code::Receipt)),
            (
                "that says something else beside its note",
                vec![object.replace(":3,", ":2,")],
                Some(Code::Receipt),
            ),
            ("with a member more", vec![object.replacen('{', "{\"more\":1,", 1)], Some(Code::Receipt)),
            ("with a member twice", vec![object.replacen('{', "{\"sequence\":3,", 1)], Some(Code::Receipt)),
            (
                "absent, and a wrong one",
                [mine(&absent, receipt_key), mine(&wrong, receipt_key)].concat(),
                Some(Code::Receipt),
            ),
        ];
        for (name, receipts, code) in cases {
            self.add(format!("a receipt {name}"), good.clone(), code).receipts = receipts;
        }
        let absent = mine(&absent, &self.signers.receipt);
        let case = self.add("a receipt of an absent session, no key given", good, Some(Code::NoKey));
        (case.key, case.receipts) = (None, absent);
        let broken = self.edit(EVENT, "severity", json!("warn"));
        self.add("edited, and a bad receipt", broken, Some(Code::Hash)).receipts = vec!["rubbish".to_owned()];
    }

    /// The bundle with another session in the place of the tombstone's; with none, if it has no lines.
    fn buried(&self, session: Vec<String>) -> String {
        let (sessions, events) = match session.len() as u64 {
            0 => (2, 6),
            lines => (3, 6 + lines - 2),
        };
        let mut end = String::new();
        bundle::push_end(&mut end, sessions, events);
        [self.good.lines[..BURIED].to_vec(), session, vec![end]].concat().concat()
    }

    /// An erased event whose tombstone is missing, or no true one.
    fn erasures(&mut self, seed: u8) {
        let event: Object = serde_json::from_str(&self.good.lines[BURIED + 1]).expect("the tombstone");
        let payload = event["payload"].as_str().expect("its payload").to_owned();
        let said = Tombstone::parse(&payload).expect("a tombstone");
        let session = erasure::session_of(said.event_id);
        let bury = |events: &[(&str, &str)]| bury_as(seed, &tenant(), &session, events).0;
        let kind = erasure::EVENT_TYPE;
        let again = self.buried(bury(&[(kind, &payload)]));
        self.add("the tombstone as it was", again, None);
        let spaced = payload.replace("null", r#""because \u00e9""#);
        let reasoned = self.buried(bury(&[(kind, &spaced)]));
        self.add("a tombstone with a reason", reasoned, None);
        let more = self.buried(bury(&[(kind, &payload), ("note.made", "{}")]));
        self.add("a tombstone with an event behind it", more, None);

        let none = self.buried(Vec::new());
        self.add("no tombstone", none.clone(), Some(Code::TombstoneNotCovered));
        self.add("no tombstone, no key given", none, Some(Code::NoKey)).key = None;
        let edit = |edit: &dyn Fn(&mut Tombstone)| {
            let mut said = said.clone();
            edit(&mut said);
            said.payload()
        };
        let long = "x".repeat(crate::limits::ERASURE_REASON_BYTES_MAX + 1);
        let other_id = CommitId::mint(7, [7; 10]).event(1);
        let cases: Vec<(&str, Vec<(&str, String)>)> = vec![
            ("of another event", vec![(kind, edit(&|t| t.event_id = other_id))]),
            ("of another session", vec![(kind, edit(&|t| t.session_id = super::session("run 2")))]),
            ("of another sequence", vec![(kind, edit(&|t| t.sequence = Seq::new(1).expect("small")))]),
            ("of another hash", vec![(kind, edit(&|t| t.hash = EventHash([7; 32])))]),
            ("of another digest", vec![(kind, edit(&|t| t.content_digest = [7; 32]))]),
            ("with too long a reason", vec![(kind, edit(&|t| t.reason = Some(long.clone())))]),
            ("of another type", vec![("quipu.redacted", payload.clone())]),
            ("that is not the first event", vec![("note.made", "{}".into()), (kind, payload.clone())]),
            ("with a member more", vec![(kind, payload.replacen('{', r#"{"more":1,"#, 1))]),
            ("with a member fewer", vec![(kind, payload.replace(r#","reason":null"#, ""))]),
            ("with its hash in upper case", {
                let hash = said.hash.to_string();
                vec![(kind, payload.replace(&hash, &hash.to_uppercase()))]
            }),
            ("that is a list", vec![(kind, format!("[{payload}]"))]),
            ("with a number as its token", vec![(kind, payload.replace(r#""tok_1""#, "1"))]),
        ];
        for (name, events) in cases {
            let events: Vec<(&str, &str)> =
                events.iter().map(|(kind, text)| (*kind, text.as_str())).collect();
            let bundle = self.buried(bury(&events));
            self.add(format!("a tombstone {name}"), bundle, Some(Code::Erased));
        }
        // In a session of another name it is nobody's.
        let astray = bury_as(seed, &tenant(), &super::session("_erased/x"), &[(kind, &payload)]).0;
        let astray = self.buried(astray);
        self.add("a tombstone in another session", astray, Some(Code::TombstoneNotCovered));
    }
}
