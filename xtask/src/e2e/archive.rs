//! The archive: made by the function, read through the API, verified in its bucket by who trusts nothing but the key.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use quipu_core::ids::hex;
use serde_json::{Value, json};

use super::drive::{Api, Reply, event};
use super::emulator::Emulator;

/// How long the schedule may take: it comes every minute, and a message has its way to go.
const SCHEDULE_PATIENCE: Duration = Duration::from_secs(180);
/// The tenant of the first token.
pub(super) const TENANT: &str = "default";
/// The events that `drive.rs` has appended before all is archived.
const EVENTS: u64 = 6;
/// An entry of a bundle: its length in two bytes, and an event's hash (c2sp.org/tlog-tiles).
const ENTRY_BYTES: usize = 2 + 32;

/// Archives what there is, and reads it back as far as the API gives it out.
pub(super) fn now(
    api: &Api<'_>,
    emulator: &Emulator,
    admin: &str,
    reply: &Reply,
    place: &Path,
) -> anyhow::Result<()> {
    let done = invoke(api, emulator, &json!({ "archive": "now" }))?;
    let runs = done["tenants"].as_array().with_context(|| format!("no tenants: {done}"))?;
    ensure!(runs.len() == 1 && runs[0]["tenant"] == TENANT && runs[0]["broken"] == json!([]), "{done}");
    // The schedule may have come first.
    for batch in runs[0]["batches"].as_array().context("batches")? {
        ensure!(batch["events"].as_u64().is_some_and(|events| (1..=EVENTS).contains(&events)), "{done}");
    }
    nothing_to_do(api, emulator)?;
    for wrong in [json!({ "archive": "later" }), json!({ "archive": "now", "tenant": "nobody" })] {
        ensure!(invoke(api, emulator, &wrong).is_err(), "{wrong} was taken");
    }

    let checkpoint = size_of_log(api, admin)?.context("no checkpoint")?;
    ensure!(checkpoint.1 == EVENTS, "{}", checkpoint.0);
    fs::write(place.join("kept.checkpoint"), checkpoint.0)?;

    let appended = &reply.expect(201)?["events"][0];
    let id = appended["event_id"].as_str().context("an event id")?;
    let proof = api.get(admin, &format!("/v1/events/{id}/proof"))?.expect(200)?;
    ensure!(proof["tree_size"] == EVENTS && proof["hash"] == appended["hash"], "{proof}");
    let index = proof["leaf_index"].as_u64().and_then(|index| usize::try_from(index).ok());
    let entry = index.context("a leaf's index")? * ENTRY_BYTES;
    // A tile is bytes that are no text: base64 on its way through API Gateway.
    let tile = api.get(admin, &format!("/v1/log/tile/entries/000.p/{EVENTS}"))?;
    let whole = tile.bytes.len() as u64 == EVENTS * ENTRY_BYTES as u64;
    ensure!(tile.status == 200 && whole, "{}: {}", tile.status, tile.text);
    let in_tile = tile.bytes.get(entry + 2..entry + ENTRY_BYTES).map(hex);
    ensure!(in_tile.as_deref() == appended["hash"].as_str(), "{in_tile:?} is not {appended}");
    api.get(admin, "/v1/log/tile/entries/001")?.problem(404, "not_found")?;
    let header = api.get(admin, "/v1/log/batches/1")?.expect(200)?;
    ensure!(header["tenant"] == TENANT, "{header}");
    api.get(admin, "/v1/log/batches/99")?.problem(404, "not_found")?;
    let consistency = api.get(admin, "/v1/log/consistency?from=1")?.expect(200)?;
    ensure!(consistency["to"] == EVENTS, "{consistency}");
    Ok(())
}

/// Adds to the log, and checks the bucket: as it is, with one byte changed, and put right again.
pub(super) fn verify(api: &Api<'_>, emulator: &Emulator, admin: &str, place: &Path) -> anyhow::Result<()> {
    api.post(admin, "/v1/events", &json!({ "events": [event("main", 5)] }))?.expect(201)?;
    invoke(api, emulator, &json!({ "archive": "now", "tenant": TENANT }))?;
    let (note, size) = size_of_log(api, admin)?.context("no checkpoint")?;
    ensure!(size == EVENTS + 1, "{note}");

    let says = check(api, emulator, place, 0)?;
    ensure!(says.starts_with("VALID"), "{says}");
    let header = emulator.object(&api.stack.bucket, &format!("log/{TENANT}/batch/{:020}.json", 1))?;
    let header: Value = serde_json::from_slice(&header).context("a header")?;
    let key = header["key"].as_str().with_context(|| format!("no key: {header}"))?;
    let kept = emulator.object(&api.stack.bucket, key)?;
    let mut changed = kept.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    emulator.put_object(&api.stack.bucket, key, &changed)?;
    let says = check(api, emulator, place, 1)?;
    ensure!(says.starts_with("INVALID"), "{says}");
    emulator.put_object(&api.stack.bucket, key, &kept)?;
    check(api, emulator, place, 0)?;
    super::sql::ask(api.stack, emulator, EVENTS + 1)?;
    nothing_to_do(api, emulator)
}

/// The schedule sends a message for the tenant, the message archives what it has: nobody calls the function here.
pub(super) fn by_schedule(api: &Api<'_>, token: &str) -> anyhow::Result<()> {
    let started = Instant::now();
    loop {
        if let Some((note, size)) = size_of_log(api, token)? {
            ensure!(size == 1, "{note}");
            break;
        }
        ensure!(started.elapsed() < SCHEDULE_PATIENCE, "the schedule has archived nothing");
        sleep(Duration::from_secs(1));
    }
    eprintln!("the schedule archived by itself, {:.0} s later", started.elapsed().as_secs_f64());
    Ok(())
}

fn nothing_to_do(api: &Api<'_>, emulator: &Emulator) -> anyhow::Result<()> {
    let event = json!({ "archive": "now", "tenant": TENANT });
    let done = invoke(api, emulator, &event)?;
    let nothing = json!({ "tenants": [{ "tenant": TENANT, "batches": [], "broken": [] }] });
    ensure!(done == nothing, "the second run found something: {done}");
    Ok(())
}

/// The newest checkpoint and the size of its tree, if the caller's tenant has a log.
fn size_of_log(api: &Api<'_>, token: &str) -> anyhow::Result<Option<(String, u64)>> {
    let reply = api.get(token, "/v1/log/checkpoint")?;
    if reply.status == 404 {
        reply.problem(404, "not_found")?;
        return Ok(None);
    }
    ensure!(reply.status == 200, "{}: {}", reply.status, reply.text);
    let size = reply.text.lines().nth(1).and_then(|line| line.parse().ok());
    let size = size.with_context(|| format!("no checkpoint: {}", reply.text))?;
    Ok(Some((reply.text, size)))
}

/// As the output `ArchiveNow` says.
fn invoke(api: &Api<'_>, emulator: &Emulator, event: &Value) -> anyhow::Result<Value> {
    let line = &api.stack.archive_now;
    let mut words = line.split_whitespace().skip_while(|word| *word != "--function-name");
    let function = words.nth(1).with_context(|| format!("no function in {line}"))?;
    ensure!(line.contains(r#"--payload '{"archive":"now"}'"#), "{line}");
    emulator.invoke(function, event)
}

/// As the output `VerifyArchive` says, and against what was kept outside.
fn check(api: &Api<'_>, emulator: &Emulator, place: &Path, code: i32) -> anyhow::Result<String> {
    let mut verify = Command::new(super::verifier());
    emulator.address(&mut verify);
    verify.arg("verify").arg(format!("s3://{}", api.stack.bucket)).arg("--key").arg(place.join("log.pub"));
    verify.arg("--checkpoint").arg(place.join("kept.checkpoint"));
    let output = verify.arg("--receipt").arg(place.join("receipt.json")).output()?;
    let says = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.code() != Some(code) {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("quipu verify of the bucket ended with {}: {says}{error}", output.status);
    }
    eprint!("{says}");
    Ok(says)
}
