//! The archive asked in SQL, in the workgroup and through the catalogue that were deployed. The emulator's engine is
//! DuckDB, so it gets the queries in those words, and knows no views: of these only what the catalogue holds is looked at.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::archive::TENANT;
use super::emulator::{Emulator, Stack};
use crate::shell::root;
use crate::tools;

/// The parameter `DatabaseName`, as it is by default.
const DATABASE: &str = "quipu";
const PATIENCE: Duration = Duration::from_secs(60);
/// The views, as files of `infra/athena/views`.
const VIEWS: [&str; 4] = ["cost_by_model_and_day", "session_timelines", "slowest_tools", "tool_errors"];

/// `events` were archived so far.
pub(super) fn ask(stack: &Stack, emulator: &Emulator, events: u64) -> anyhow::Result<()> {
    let days = ["2026-01-01", "9999-12-31"];
    let of = |tenant: &str| json!([tenant, days[0], days[1]]);
    let count = "SELECT count(*) AS found FROM events WHERE tenant = ? AND dt BETWEEN ? AND ?";
    let queries = transpiled(&json!([
        { "sql": count, "values": of(TENANT) },
        { "sql": count, "values": of("nobody") },
        { "macro": "verify_counts", "values": of(TENANT) },
        { "macro": "verify_chain", "values": of(TENANT) },
    ]))?;
    let [all, of_nobody, counts, chain] = queries.as_slice() else { bail!("{queries:?}") };
    ensure!(rows(stack, emulator, all)? == [[events.to_string()]], "not {events} events");
    ensure!(rows(stack, emulator, of_nobody)? == [["0"]], "events of nobody");
    let files = rows(stack, emulator, counts)?;
    let fine = files.iter().all(|file| file.last().is_some_and(|ok| ok == "true"));
    ensure!(files.len() >= 2 && fine, "{files:?}");
    let wrong = rows(stack, emulator, chain)?;
    ensure!(wrong.is_empty(), "{wrong:?}");

    for view in VIEWS {
        let table = json!({ "DatabaseName": DATABASE, "Name": view });
        let table = emulator.call("glue", "AWSGlue.GetTable", &table)?;
        let text = table["Table"]["ViewOriginalText"].as_str().with_context(|| format!("{view}: {table}"))?;
        let encoded = text.strip_prefix("/* Presto View: ").and_then(|rest| rest.strip_suffix(" */"));
        let definition = STANDARD.decode(encoded.with_context(|| format!("{view}: {text}"))?)?;
        let definition: Value = serde_json::from_slice(&definition).context(view)?;
        let sql = std::fs::read_to_string(root().join(format!("infra/athena/views/{view}.sql")))?;
        let same = definition["originalSql"] == sql.trim() && definition["schema"] == DATABASE;
        ensure!(same && table["Table"]["Parameters"]["presto_view"] == "true", "{view}: {definition}");
    }
    Ok(())
}

/// The queries in the words of the emulator's engine.
fn transpiled(queries: &Value) -> anyhow::Result<Vec<String>> {
    let mut script = Command::new(tools::python()?);
    script
        .arg(root().join("tests/clients/sql.py"))
        .arg("athena")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut script = script.spawn()?;
    script.stdin.take().context("its input")?.write_all(queries.to_string().as_bytes())?;
    let output = script.wait_with_output()?;
    ensure!(output.status.success(), "sql.py: {}", output.status);
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// What a query in the workgroup answers.
fn rows(stack: &Stack, emulator: &Emulator, sql: &str) -> anyhow::Result<Vec<Vec<String>>> {
    let call =
        |operation: &str, input: &Value| emulator.call("athena", &format!("AmazonAthena.{operation}"), input);
    // Where results go is the workgroup's to say.
    let start = json!({
        "QueryString": sql,
        "QueryExecutionContext": { "Database": DATABASE },
        "WorkGroup": stack.workgroup,
    });
    let id = json!({ "QueryExecutionId": call("StartQueryExecution", &start)?["QueryExecutionId"] });
    let started = Instant::now();
    loop {
        let status = call("GetQueryExecution", &id)?["QueryExecution"]["Status"].take();
        match status["State"].as_str() {
            Some("SUCCEEDED") => break,
            Some("QUEUED" | "RUNNING") => ensure!(started.elapsed() < PATIENCE, "{sql}"),
            _ => bail!("{status}: {sql}"),
        }
        sleep(Duration::from_millis(50));
    }
    let answer = call("GetQueryResults", &id)?;
    let rows = answer["ResultSet"]["Rows"].as_array().context("rows")?;
    let row = |row: &Value| {
        let cells = row["Data"].as_array().context("cells")?.iter();
        Ok(cells.map(|cell| cell["VarCharValue"].as_str().unwrap_or_default().to_owned()).collect())
    };
    // The first is the names of the columns.
    rows.iter().skip(1).map(row).collect()
}
