//! `quipu export`: sessions as one evidence bundle (docs/format.md, section 5).
//!
//! The server writes one bundle for each session. Several are joined into one here: their first lines must agree,
//! and the last line counts anew. Events are passed on as they came. An export of a range of time is one of the sessions
//! that have something in it, each of them whole: a chain can be followed from its beginning only.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read as _, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use quipu_core::limits;
use quipu_core::log::checkpoint::Checkpoint;
use quipu_core::note::unverified_text;
use serde::Deserialize;

use crate::args::ConnectArgs;
use crate::client::{Client, Request};
use crate::failure::{hinted, stdout_error};
use crate::output::{count, print};

/// Arguments of `quipu export`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quipu export --session s1 --out s1.ndjson
  quipu export --session s1 s2 s3 --out case-7.ndjson
  quipu export --session s1 --out - | gzip > s1.ndjson.gz
  quipu export --since 2026-02-01 --until 2026-02-28 --out february.ndjson

The bundle verifies offline, without this ledger:  quipu verify s1.ndjson --key log.pub
(`quipu key show > log.pub`, fetched before the evidence is in doubt)")]
pub(crate) struct ExportArgs {
    /// The sessions
    #[arg(long, value_name = "ID", num_args = 1.., required_unless_present_any = ["since", "until"])]
    session: Vec<String>,
    /// The sessions with an event of this time or later, each whole: RFC 3339, or a day
    #[arg(long, value_name = "TIME", conflicts_with = "session")]
    since: Option<String>,
    /// The sessions with an event of this time or earlier, each whole
    #[arg(long, value_name = "TIME", conflicts_with = "session")]
    until: Option<String>,
    /// Where to write it; `-` is standard output
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The summary as JSON (on standard error if the bundle goes to standard output)
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Runs it.
pub(crate) fn run(args: &ExportArgs) -> anyhow::Result<ExitCode> {
    for (index, session) in args.session.iter().enumerate() {
        ensure!(!args.session[..index].contains(session), "the session {session:?} is named twice");
    }
    let client = Client::connect(&args.connect)?;
    let sessions = if args.session.is_empty() { plan(&client, args)? } else { args.session.clone() };
    let to_stdout = args.out == Path::new("-");
    let events = if to_stdout {
        let mut out = BufWriter::new(std::io::stdout().lock());
        let events = write_bundle(&client, &sessions, &mut out, &stdout_error)?;
        out.flush().map_err(stdout_error)?;
        events
    } else {
        write_file(&client, &sessions, &args.out)?
    };
    let sessions = sessions.len() as u64;
    let shown = args.out.display();
    let summary = if args.json {
        serde_json::json!({ "out": args.out, "sessions": sessions, "events": events }).to_string()
    } else {
        let what = format!("{}, {}", count(sessions, "session"), count(events, "event"));
        if to_stdout {
            format!("wrote {what}")
        } else {
            format!(
                "wrote {what} to {shown}\nverify it offline: quipu verify {shown} --key log.pub   (log.pub: quipu key show)"
            )
        }
    };
    if to_stdout {
        eprintln!("{summary}")
    } else {
        print(&summary)?
    }
    Ok(ExitCode::SUCCESS)
}

/// A page of the sessions that a range is about.
#[derive(Deserialize)]
struct Plan {
    sessions: Vec<String>,
    next_cursor: Option<String>,
}

/// The sessions that the range is about.
fn plan(client: &Client, args: &ExportArgs) -> anyhow::Result<Vec<String>> {
    let (mut sessions, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let request = Request::get(&["v1", "export"])
            .parameter("from", args.since.as_deref())
            .parameter("to", args.until.as_deref())
            .parameter("cursor", cursor.as_deref());
        let page: Plan =
            serde_json::from_str(&client.ask(&request)?).context("the answer is no list of sessions")?;
        sessions.extend(page.sessions);
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    if sessions.is_empty() {
        bail!(hinted(
            "no session has an event in this range",
            "quipu query --from … --to … shows what there is"
        ));
    }
    Ok(sessions)
}

/// How far an export has come: on standard error, and only if that is a terminal.
fn progress(sessions: usize) -> ProgressBar {
    let bar = ProgressBar::new(sessions as u64);
    // One session is done before anybody looks.
    if sessions < 2 {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let style =
        ProgressStyle::with_template("{bar:30} {pos} of {len} sessions  {msg}  {elapsed}, {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// Writes the file whole or not at all: half a bundle must not be taken for one.
fn write_file(client: &Client, sessions: &[String], path: &Path) -> anyhow::Result<u64> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let cannot =
        |error: std::io::Error| anyhow::Error::new(error).context(format!("cannot write {}", path.display()));
    let mut file = BufWriter::with_capacity(256 * 1024, File::create(&part).map_err(cannot)?);
    let mut write = || {
        let events = write_bundle(client, sessions, &mut file, &cannot)?;
        file.flush().map_err(cannot)?;
        file.get_ref().sync_all().map_err(cannot)?;
        std::fs::rename(&part, path).map_err(cannot)?;
        Ok(events)
    };
    let written = write();
    if written.is_err() {
        // It may be gone already; either way nothing is left to mend.
        let _ = std::fs::remove_file(&part);
    }
    written
}

type WriteError<'e> = &'e dyn Fn(std::io::Error) -> anyhow::Error;

fn write_bundle(
    client: &Client,
    sessions: &[String],
    out: &mut dyn Write,
    fail: WriteError<'_>,
) -> anyhow::Result<u64> {
    let mut joined = Joined { out, fail, header: None, preamble: Vec::new(), sessions: 0, events: 0 };
    let bar = progress(sessions.len());
    let mut log_size: Option<u64> = None;
    for session in sessions {
        let request = Request::get(&["v1", "sessions", session, "export"])
            .parameter("log_size", log_size.map(|size| size.to_string()).as_deref());
        let reply = client.send(&request)?.accepted().with_context(|| format!("session {session:?}"))?;
        joined.add(reply.body).with_context(|| format!("session {session:?}"))?;
        // The log may grow meanwhile, and a bundle has one checkpoint.
        log_size = Some(joined.log_size()?);
        bar.inc(1);
        bar.set_message(count(joined.events, "event"));
    }
    bar.finish_and_clear();
    joined.end()
}

/// Bundles that become one.
struct Joined<'o> {
    out: &'o mut dyn Write,
    fail: WriteError<'o>,
    header: Option<Header>,
    /// What stands between the first line and the first session: rotations and the checkpoint.
    preamble: Vec<Vec<u8>>,
    sessions: u64,
    events: u64,
}

/// What the first lines must agree on.
#[derive(Debug, PartialEq, Deserialize)]
struct Header {
    deployment: String,
    tenant: String,
    log_key: String,
    certificates: Vec<String>,
}

#[derive(Deserialize)]
struct Kind<'l> {
    kind: &'l str,
}

#[derive(Deserialize)]
struct End {
    sessions: u64,
    events: u64,
}

impl Joined<'_> {
    /// Adds a bundle, and checks that it came whole.
    fn add(&mut self, body: Box<dyn std::io::Read + Send>) -> anyhow::Result<()> {
        let mut body = BufReader::with_capacity(256 * 1024, body);
        let (mut sessions, mut events) = (0, 0);
        let is_first = self.header.is_none();
        let mut preamble = Vec::new();
        let mut line = Vec::new();
        loop {
            line.clear();
            let limit = limits::BUNDLE_LINE_BYTES_MAX as u64 + 1;
            (&mut body).take(limit).read_until(b'\n', &mut line).context("the bundle broke off")?;
            if line.last() != Some(&b'\n') {
                bail!(hinted("the bundle broke off before its end", "the server's log says why; try again"));
            }
            let kind: Kind<'_> = serde_json::from_slice(&line).context("the answer is no bundle")?;
            match kind.kind {
                "bundle" => {
                    self.open(&line)?;
                    continue;
                }
                "end" => {
                    let end: End = serde_json::from_slice(&line).context("the answer is no bundle")?;
                    let whole = (end.sessions, end.events) == (sessions, events);
                    ensure!(whole && events > 0, "the bundle's counts are not those of what came");
                    self.sessions += sessions;
                    self.events += events;
                    return Ok(());
                }
                "rotation" | "checkpoint" if sessions == 0 => {
                    preamble.push(line.clone());
                    continue;
                }
                "session" if sessions == 0 => {
                    self.settle(is_first, std::mem::take(&mut preamble))?;
                    sessions = 1;
                }
                "session" => sessions += 1,
                "event" => events += 1,
                _ => {}
            }
            self.out.write_all(&line).map_err(self.fail)?;
        }
    }

    fn open(&mut self, line: &[u8]) -> anyhow::Result<()> {
        let header: Header = serde_json::from_slice(line).context("the answer is no bundle")?;
        match &self.header {
            None => {
                self.out.write_all(line).map_err(self.fail)?;
                self.header = Some(header);
                Ok(())
            }
            Some(first) if *first == header => Ok(()),
            Some(_) => bail!("the ledger's keys changed while it was exported; try again"),
        }
    }

    /// Writes the preamble of the first bundle; that of each other one must be the same, since there is but one.
    fn settle(&mut self, is_first: bool, preamble: Vec<Vec<u8>>) -> anyhow::Result<()> {
        if is_first {
            for line in &preamble {
                self.out.write_all(line).map_err(self.fail)?;
            }
            self.preamble = preamble;
        } else if self.preamble != preamble {
            bail!(hinted("the log grew while it was exported", "try again, between two batches"));
        }
        Ok(())
    }

    /// Leaves of the log in the checkpoint of the first bundle; 0 if it has none.
    fn log_size(&self) -> anyhow::Result<u64> {
        #[derive(Deserialize)]
        struct Line {
            kind: String,
            note: String,
        }
        for line in &self.preamble {
            let line: Line = serde_json::from_slice(line).context("the answer is no bundle")?;
            if line.kind == "checkpoint" {
                let text = unverified_text(&line.note).map(Checkpoint::parse);
                let Ok(Ok(checkpoint)) = text else { bail!("the answer's checkpoint is none") };
                return Ok(checkpoint.tree_size);
            }
        }
        Ok(0)
    }

    fn end(self) -> anyhow::Result<u64> {
        let line =
            format!("{{\"kind\":\"end\",\"sessions\":{},\"events\":{}}}\n", self.sessions, self.events);
        self.out.write_all(line.as_bytes()).map_err(self.fail)?;
        Ok(self.events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = r#"{"kind":"bundle","format":"quipu.bundle.v1","deployment":"d","tenant":"t","created_at":"c","log_key":"k","certificates":["n"]}"#;

    fn join(bundles: &[String]) -> anyhow::Result<(u64, String)> {
        let mut out = Vec::new();
        let fail = |e: std::io::Error| anyhow::Error::new(e);
        let (preamble, sessions, events) = (Vec::new(), 0, 0);
        let mut joined = Joined { out: &mut out, fail: &fail, header: None, preamble, sessions, events };
        for bundle in bundles {
            joined.add(Box::new(std::io::Cursor::new(bundle.clone().into_bytes())))?;
        }
        let events = joined.end()?;
        Ok((events, String::from_utf8(out).unwrap()))
    }

    fn bundle(session: &str, end: &str) -> String {
        let event = r#"{"kind":"event","payload":"{\"kind\":\"end\"}"}"#;
        format!(
            "{HEAD}\n{{\"kind\":\"session\",\"session_id\":\"{session}\"}}\n{event}\n{{\"kind\":\"head\"}}\n{end}"
        )
    }

    const END: &str = "{\"kind\":\"end\",\"sessions\":1,\"events\":1}\n";

    #[test]
    fn bundles_are_joined_into_one() {
        let (events, text) = join(&[bundle("a", END), bundle("b", END)]).unwrap();
        assert_eq!(events, 2);
        assert_eq!(text.lines().count(), 8);
        assert_eq!(text.matches("quipu.bundle.v1").count(), 1);
        assert!(text.ends_with("{\"kind\":\"end\",\"sessions\":2,\"events\":2}\n"));
        assert_eq!(join(&[bundle("a", END)]).unwrap().1, bundle("a", END), "one is passed on as it is");
    }

    #[test]
    fn one_checkpoint_serves_all_sessions() {
        let with = |session: &str, size: &str| {
            let checkpoint = format!("{HEAD}\n{{\"kind\":\"checkpoint\",\"note\":\"{size}\"}}");
            bundle(session, END).replacen(HEAD, &checkpoint, 1)
        };
        let (_, text) = join(&[with("a", "5"), with("b", "5")]).unwrap();
        assert_eq!(text.matches("\"checkpoint\"").count(), 1);
        assert!(join(&[with("a", "5"), with("b", "6")]).unwrap_err().to_string().contains("log grew"));
    }

    #[test]
    fn a_bundle_that_is_not_whole_is_refused() {
        assert!(join(&[bundle("a", "")]).is_err());
        assert!(join(&[bundle("a", END.trim_end())]).is_err());
        assert!(join(&[bundle("a", "{\"kind\":\"end\",\"sessions\":1,\"events\":2}\n")]).is_err());
        let other = bundle("b", END).replace("\"n\"", "\"m\"");
        assert!(join(&[bundle("a", END), other]).unwrap_err().to_string().contains("keys changed"));
    }
}
