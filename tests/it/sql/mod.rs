//! The SQL of `infra/athena` on a real archive: what it answers is what the REST API answers, and its check of the chain
//! finds what was changed. On DuckDB over the directory, as the README shows it, and through the emulator's Athena over
//! a bucket, with the table as the template has it in the catalogue.
//!
//! Both engines are DuckDB. Of Athena itself only this is shown: the files are in the grammar of Trino, which it is.

mod checks;
mod erased;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use quipu_core::time::Micros;
use quipu_tests::{Emulator, connection, emulator, python, repository};
use serde_json::{Value, json};

use crate::deploy;
use crate::real_archive::{Raw, RealArchive, SESSIONS, TENANTS, batches, escape, text};

/// The columns of a row as text, as Athena's API gives them.
type Row = BTreeMap<String, Option<String>>;

/// Every day that there is.
const ALWAYS: [&str; 2] = ["0001-01-01", "9999-12-31"];
const QUERY_PATIENCE: Duration = Duration::from_secs(60);

/// Runs a script of `tests/clients`; gives what it prints.
fn run(arguments: &[&str], input: &Value) -> Vec<u8> {
    let mut command = Command::new(python());
    command.current_dir(repository().join("tests/clients")).args(arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{arguments:?}");
    output.stdout
}

/// Runs `sql.py`.
fn script(what: &str, input: &Value) -> Value {
    serde_json::from_slice(&run(&["sql.py", what], input)).unwrap()
}

/// A query in Athena's dialect of a tenant's events.
fn query(sql: &str, tenant: &str, days: [&str; 2]) -> Value {
    json!({ "sql": sql, "values": [tenant, days[0], days[1]] })
}

/// A saved query.
fn saved(name: &str, tenant: &str, days: [&str; 2]) -> Value {
    json!({ "macro": name, "values": [tenant, days[0], days[1]] })
}

/// Something that takes SQL, over an archive.
enum Engine {
    /// On a directory.
    DuckDb(PathBuf),
    /// A database of this name in the emulator's catalogue, over a bucket of the same name.
    Athena(String),
}

impl Engine {
    /// Both of them.
    async fn both(archive: &Path) -> [Self; 2] {
        [Self::DuckDb(archive.to_owned()), Self::Athena(database_over(archive).await)]
    }

    /// What it answers to each.
    fn ask(&self, queries: &[Value]) -> Vec<Vec<Row>> {
        match self {
            Self::DuckDb(archive) => {
                ask_duckdb(&queries.iter().map(|query| on(archive, query)).collect::<Vec<_>>())
            }
            Self::Athena(database) => {
                let queries = script("athena", &queries.into());
                let queries: Vec<String> = serde_json::from_value(queries).unwrap();
                queries.iter().map(|sql| athena_answer(database, sql)).collect()
            }
        }
    }

    fn ask_one(&self, query: Value) -> Vec<Row> {
        self.ask(&[query]).remove(0)
    }

    fn name(&self) -> &'static str {
        match self {
            Self::DuckDb(_) => "DuckDB",
            Self::Athena(_) => "Athena",
        }
    }
}

/// Makes a bucket that holds an archive's events and a database over it, of one name: gives that.
async fn database_over(archive: &Path) -> String {
    let url = Emulator::ministack().url();
    let name = format!("quipu-{:016x}", RandomState::new().build_hasher().finish());
    let s3 = connection(url, None).s3();
    s3.create_bucket().bucket(&name).send().await.unwrap();
    for tenant in std::fs::read_dir(archive.join("events")).unwrap() {
        let tenant = tenant.unwrap().file_name().into_string().unwrap();
        for path in batches(archive, tenant.strip_prefix("tenant=").unwrap()) {
            let key = path.strip_prefix(archive).unwrap().to_str().unwrap();
            let bytes = std::fs::read(&path).unwrap();
            s3.put_object().bucket(&name).key(key).body(bytes.into()).send().await.unwrap();
        }
    }
    emulator::call(url, "AWSGlue.CreateDatabase", &json!({ "DatabaseInput": { "Name": name } }));
    let table = &deploy::template()["Resources"]["EventsTable"]["Properties"]["TableInput"];
    let table = json!({ "DatabaseName": name, "TableInput": in_bucket(table, &name) });
    emulator::call(url, "AWSGlue.CreateTable", &table);
    name
}

/// A query on an archive's directory.
fn on(archive: &Path, query: &Value) -> Value {
    let mut query = query.clone();
    query["archive"] = json!(archive);
    query
}

/// What DuckDB answers to each.
fn ask_duckdb(queries: &[Value]) -> Vec<Vec<Row>> {
    serde_json::from_value(script("duckdb", &queries.into())).unwrap()
}

/// What the template says, deployed over this bucket.
fn in_bucket(value: &Value, bucket: &str) -> Value {
    match value {
        Value::Object(members) => match members.get("Fn::Sub").and_then(Value::as_str) {
            Some(text) => json!(text.replace("${ArchiveBucket}", bucket).replace("${!", "${")),
            None => members.iter().map(|(name, value)| (name.clone(), in_bucket(value, bucket))).collect(),
        },
        Value::Array(items) => items.iter().map(|item| in_bucket(item, bucket)).collect(),
        other => other.clone(),
    }
}

fn athena_answer(database: &str, sql: &str) -> Vec<Row> {
    let url = Emulator::ministack().url();
    let call =
        |operation: &str, input: Value| emulator::call(url, &format!("AmazonAthena.{operation}"), &input);
    let start = json!({
        "QueryString": sql,
        "QueryExecutionContext": { "Database": database },
        "ResultConfiguration": { "OutputLocation": format!("s3://{database}/results/") },
    });
    let id = call("StartQueryExecution", start)["QueryExecutionId"].clone();
    let started = Instant::now();
    loop {
        let status = call("GetQueryExecution", json!({ "QueryExecutionId": id }));
        let status = &status["QueryExecution"]["Status"];
        match status["State"].as_str().unwrap() {
            "SUCCEEDED" => break,
            "QUEUED" | "RUNNING" => assert!(started.elapsed() < QUERY_PATIENCE, "{sql}"),
            _ => panic!("{status}: {sql}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let (mut rows, mut names, mut token) = (Vec::new(), None::<Vec<String>>, Value::Null);
    loop {
        let mut input = json!({ "QueryExecutionId": id, "MaxResults": 1000 });
        if !token.is_null() {
            input["NextToken"] = token;
        }
        let mut page = call("GetQueryResults", input);
        for row in page["ResultSet"]["Rows"].as_array().unwrap() {
            let cells = row["Data"].as_array().unwrap().iter();
            let cells = cells.map(|cell| cell["VarCharValue"].as_str().map(str::to_owned));
            match &names {
                // The first row is the names of the columns.
                None => names = Some(cells.map(Option::unwrap).collect()),
                Some(names) => rows.push(names.iter().cloned().zip(cells).collect()),
            }
        }
        token = page["NextToken"].take();
        if token.is_null() {
            return rows;
        }
    }
}

/// A value that is not null.
fn of<'r>(row: &'r Row, name: &str) -> &'r str {
    row[name].as_deref().unwrap_or_else(|| panic!("{name} is null in {row:?}"))
}

fn number(row: &Row, name: &str) -> f64 {
    of(row, name).parse().unwrap()
}

/// A time as both engines show it; the emulator's keeps the zone.
fn time(row: &Row, name: &str) -> String {
    of(row, name).trim_end_matches("+00:00").to_owned()
}

/// The same of the API's `2026-02-08T10:00:00.000001Z`.
fn shown(time: &str) -> String {
    let time = time.trim_end_matches('Z').replace('T', " ");
    time.strip_suffix(".000000").map(str::to_owned).unwrap_or(time)
}

/// An event of the API's answer.
struct Event {
    id: String,
    session: String,
    kind: String,
    timestamp: String,
    payload: Value,
    raw: Raw,
}

fn events(archive: &RealArchive, tenant: &str) -> Vec<Event> {
    let read = |raw: Raw| Event {
        id: text(&raw, "event_id").unwrap(),
        session: text(&raw, "session_id").unwrap(),
        kind: text(&raw, "event_type").unwrap(),
        timestamp: text(&raw, "timestamp").unwrap(),
        payload: serde_json::from_str(raw["payload"].get()).unwrap(),
        raw,
    };
    archive.events(tenant).into_iter().map(read).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_views_and_saved_queries_answer_what_the_api_answers() {
    let archive = RealArchive::make();
    for engine in Engine::both(&archive.path()).await {
        for tenant in TENANTS {
            let events = events(&archive, tenant);
            tool_errors(&engine, tenant, &events);
            costs(&engine, tenant, &events, &archive);
            slowest(&engine, tenant, &events);
            timelines(&engine, tenant, &events);
            counts(&engine, tenant, &archive);
            let who = engine.name();
            assert_eq!(engine.ask_one(saved("verify_chain", tenant, ALWAYS)), [], "{who}: nothing is wrong");
        }
        // Of nobody else, and of no other day.
        let nobody = ["errors", "costs", "slowest", "verify_counts"].map(|name| {
            [saved(name, "nobody", ALWAYS), saved(name, "default", ["2020-01-01", "2020-12-31"])]
        });
        assert!(engine.ask(&nobody.concat()).iter().all(Vec::is_empty), "{}", engine.name());
    }
}

fn tool_errors(engine: &Engine, tenant: &str, events: &[Event]) {
    let (who, failed) = (engine.name(), || events.iter().filter(|event| event.kind == "tool_error"));
    let all = "SELECT * FROM tool_errors WHERE tenant = ? AND dt BETWEEN ? AND ?";
    let [found, by_tool] =
        engine.ask(&[query(all, tenant, ALWAYS), saved("errors", tenant, ALWAYS)]).try_into().unwrap();
    let found: BTreeMap<_, _> = found.iter().map(|row| (of(row, "event_id"), row)).collect();
    assert_eq!(found.len(), failed().count(), "{who}, {tenant}");
    let mut tools: BTreeMap<_, (u64, String)> = BTreeMap::new();
    for event in failed() {
        let row = found[event.id.as_str()];
        let says = |name: &str| event.payload[name].as_str().unwrap();
        let same = [
            (of(row, "session_id"), event.session.as_str()),
            (of(row, "sequence"), event.raw["sequence"].get()),
            (&time(row, "timestamp"), &shown(&event.timestamp)),
            (of(row, "agent_id"), &text(&event.raw, "agent_id").unwrap()),
            (of(row, "tool_name"), says("toolName")),
            (of(row, "call_id"), says("callId")),
            (of(row, "error_code"), says("errorCode")),
            (of(row, "error"), says("error")),
            (of(row, "tenant"), tenant),
        ];
        for (theirs, ours) in same {
            assert_eq!(theirs, ours, "{who}: {row:?}");
        }
        assert_eq!(number(row, "duration_ms"), event.payload["durationMs"].as_f64().unwrap(), "{who}");
        let of_tool = tools.entry((says("toolName").to_owned(), says("errorCode").to_owned())).or_default();
        of_tool.0 += 1;
        of_tool.1 = shown(&event.timestamp).max(std::mem::take(&mut of_tool.1));
    }
    let by_tool: BTreeMap<_, _> = by_tool
        .iter()
        .map(|row| {
            let key = (of(row, "tool_name").to_owned(), of(row, "error_code").to_owned());
            (key, (of(row, "failures").parse().unwrap(), time(row, "latest")))
        })
        .collect();
    assert_eq!(by_tool, tools, "{who}");
}

/// 10⁻¹² dollars.
fn dollars(value: f64) -> i64 {
    (value * 1e12).round() as i64
}

fn costs(engine: &Engine, tenant: &str, events: &[Event], archive: &RealArchive) {
    let mut expected: BTreeMap<_, [i64; 4]> = BTreeMap::new();
    for event in events.iter().filter(|event| event.kind == "llm_response") {
        let says = |name: &str| event.payload[name].as_str().unwrap().to_owned();
        let key = (event.timestamp[..10].to_owned(), says("provider"), says("model"));
        let usage = |name: &str| event.payload["usage"][name].as_i64().unwrap();
        let more = [
            1,
            usage("inputTokens"),
            usage("outputTokens"),
            dollars(event.payload["costUsd"].as_f64().unwrap()),
        ];
        let sum = expected.entry(key).or_default();
        *sum = std::array::from_fn(|index| sum[index] + more[index]);
    }
    let found: BTreeMap<_, _> = engine
        .ask_one(saved("costs", tenant, ALWAYS))
        .iter()
        .map(|row| {
            let key = ["day", "provider", "model"].map(|name| of(row, name).to_owned());
            let whole = |name: &str| of(row, name).parse::<i64>().unwrap();
            let cost = dollars(number(row, "cost_usd"));
            (key.into(), [whole("calls"), whole("input_tokens"), whole("output_tokens"), cost])
        })
        .collect();
    assert_eq!(found, expected, "{}, {tenant}", engine.name());
    let of_sessions: i64 = SESSIONS
        .iter()
        .map(|session| {
            let session = archive.get(tenant, &format!("/v1/sessions/{}", escape(session)));
            dollars(serde_json::from_str::<Value>(&session).unwrap()["cost_usd"].as_f64().unwrap())
        })
        .sum();
    assert_eq!(
        found.values().map(|sum| sum[3]).sum::<i64>(),
        of_sessions,
        "{}: as sessions say",
        engine.name()
    );
}

fn slowest(engine: &Engine, tenant: &str, events: &[Event]) {
    let mut expected: BTreeMap<String, Vec<(f64, &Event)>> = BTreeMap::new();
    for event in events.iter().filter(|event| ["tool_response", "tool_error"].contains(&event.kind.as_str()))
    {
        let tool = event.payload["toolName"].as_str().unwrap().to_owned();
        expected.entry(tool).or_default().push((event.payload["durationMs"].as_f64().unwrap(), event));
    }
    let who = engine.name();
    let view = "SELECT * FROM slowest_tools WHERE tenant = ? AND dt BETWEEN ? AND ?";
    let [found, of_view] =
        engine.ask(&[saved("slowest", tenant, ALWAYS), query(view, tenant, ALWAYS)]).try_into().unwrap();
    let averages: Vec<_> = found.iter().map(|row| number(row, "average_ms")).collect();
    assert!(averages.is_sorted_by(|a, b| a >= b), "{who}: {averages:?}");
    let tools: BTreeSet<_> = found.iter().map(|row| of(row, "tool_name")).collect();
    assert_eq!(tools, expected.keys().map(String::as_str).collect(), "{who}");
    for row in &found {
        let calls = &expected[of(row, "tool_name")];
        let (took, call) = calls.iter().max_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
        assert_eq!(of(row, "slowest_event_id"), call.id, "{who}");
        assert_eq!(number(row, "slowest_ms"), *took, "{who}");
        assert_eq!(of(row, "calls"), calls.len().to_string(), "{who}");
        let failures = calls.iter().filter(|(_, event)| event.kind == "tool_error").count();
        assert_eq!(of(row, "failures"), failures.to_string(), "{who}");
        let average = calls.iter().map(|(took, _)| took).sum::<f64>() / calls.len() as f64;
        assert!((number(row, "average_ms") - average).abs() < 1e-6, "{who}: {average} {row:?}");
    }
    for row in &of_view {
        let fastest = expected[of(row, "tool_name")].iter().map(|(took, _)| *took).fold(f64::MAX, f64::min);
        let p95 = number(row, "p95_ms");
        assert!(p95 >= fastest && p95 <= number(row, "slowest_ms"), "{who}: {row:?}");
    }
}

fn timelines(engine: &Engine, tenant: &str, events: &[Event]) {
    let who = engine.name();
    let sql = "SELECT * FROM session_timelines WHERE tenant = ? AND dt BETWEEN ? AND ? ORDER BY session_id, sequence";
    let found = engine.ask_one(query(sql, tenant, ALWAYS));
    assert_eq!(found.len(), events.len(), "{who}");
    for session in SESSIONS {
        let mut expected: Vec<_> = events.iter().filter(|event| event.session == session).collect();
        expected.sort_by_key(|event| event.raw["sequence"].get().parse::<u64>().unwrap());
        let of_session: Vec<_> = found.iter().filter(|row| of(row, "session_id") == session).collect();
        assert_eq!(of_session.len(), expected.len(), "{who}");
        // The window begins anew with each day of batches: midnight may come while the test runs.
        let mut before: Option<(&str, i64)> = None;
        for (row, event) in of_session.into_iter().zip(expected) {
            assert_eq!(of(row, "event_id"), event.id, "{who}");
            assert_eq!(of(row, "event_type"), event.kind, "{who}");
            assert_eq!(time(row, "timestamp"), shown(&event.timestamp), "{who}");
            let start: String = event.raw["payload"].get().chars().take(200).collect();
            assert_eq!(of(row, "payload_start"), start, "{who}");
            let us = Micros::parse(&event.timestamp).unwrap().get();
            let since = before.filter(|(day, _)| *day == of(row, "dt")).map(|(_, at)| (us - at) as f64 / 1e3);
            assert_eq!(row["since_previous_ms"].as_ref().map(|text| text.parse().unwrap()), since, "{who}");
            before = Some((of(row, "dt"), us));
        }
    }
}

/// The counts are those of the signed headers.
fn counts(engine: &Engine, tenant: &str, archive: &RealArchive) {
    let who = engine.name();
    let found = engine.ask_one(saved("verify_counts", tenant, ALWAYS));
    assert_eq!(found.len(), archive.batches(tenant).len(), "{who}");
    for (row, number) in found.iter().zip(1..) {
        let header = archive.get(tenant, &format!("/v1/log/batches/{number}"));
        let header: Value = serde_json::from_str(&header).unwrap();
        assert_eq!(of(row, "batch"), number.to_string(), "{who}");
        assert_eq!(of(row, "event_count"), header["count"].to_string(), "{who}");
        assert_eq!(of(row, "sessions"), header["runs"].as_array().unwrap().len().to_string(), "{who}");
        for name in ["commit_first", "commit_last"] {
            assert_eq!(of(row, name), header[name].as_str().unwrap(), "{who}");
        }
        for name in ["time_min", "time_max"] {
            assert_eq!(time(row, name), shown(header[name].as_str().unwrap()), "{who}");
        }
        // The emulator's files are copies.
        let key = header["key"].as_str().unwrap().strip_prefix("events/").unwrap();
        assert!(of(row, "path").ends_with(key), "{who}: {row:?}");
        assert_eq!(of(row, "ok"), "true", "{who}: {row:?}");
    }
}

/// The catalogue's columns are those of the files and of what the views give: Athena refuses a view whose types differ
/// from what is written there, and reads a column of another type as nulls or not at all.
#[test]
fn the_catalogue_has_the_columns_that_there_are() {
    let archive = RealArchive::make();
    let template = deploy::template();
    let tables: Vec<_> = template["Resources"]
        .as_object()
        .unwrap()
        .values()
        .filter(|resource| resource["Type"] == "AWS::Glue::Table")
        .map(|resource| &resource["Properties"]["TableInput"])
        .collect();
    let describe = |table: &&Value| on(&archive.path(), &json!({ "describe": table["Name"] }));
    let described = ask_duckdb(&tables.iter().map(describe).collect::<Vec<_>>());
    assert_eq!(tables.len(), 5);
    for (table, described) in tables.into_iter().zip(described) {
        let listed = |value: &Value| -> Vec<(String, String)> {
            let column = |column: &Value| {
                let text = |name: &str| column[name].as_str().unwrap().to_owned();
                (text("Name"), text("Type"))
            };
            value.as_array().unwrap().iter().map(column).collect()
        };
        let expected =
            [listed(&table["StorageDescriptor"]["Columns"]), listed(&table["PartitionKeys"])].concat();
        let found: Vec<_> = described
            .iter()
            .map(|row| (of(row, "column_name").to_owned(), of(row, "column_type").to_lowercase()))
            // Athena has it without its being in the catalogue.
            .filter(|(name, _)| name != "$path")
            .map(|(name, kind)| {
                let hive = match kind.as_str() {
                    "varchar" => "string",
                    "blob" => "binary",
                    same => same,
                };
                (name, hive.to_owned())
            })
            .collect();
        assert_eq!(found, expected, "{}", table["Name"]);
    }
}

/// The SQL files of a folder: names and texts.
fn files(folder: &str) -> BTreeMap<String, String> {
    let files = std::fs::read_dir(repository().join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "sql"));
    let named = |path: PathBuf| {
        (path.file_stem().unwrap().to_str().unwrap().to_owned(), std::fs::read_to_string(path).unwrap())
    };
    files.map(named).collect()
}

#[test]
fn every_file_is_in_the_grammar_of_trino() {
    let mut texts: Vec<_> = ["infra/athena/views", "infra/athena"].into_iter().flat_map(files).collect();
    assert!(texts.len() >= 9, "{}", texts.len());
    // What DuckDB takes, and Trino does not.
    let foreign =
        ["SELECT sequence::varchar FROM events", "SELECT * EXCLUDE (salt) FROM events", "FROM events"];
    texts.extend(foreign.map(|sql| ("foreign".to_owned(), sql.to_owned())));
    let sql: Vec<_> = texts.iter().map(|(_, sql)| sql.as_str()).collect();
    let says: Vec<Option<String>> = serde_json::from_value(script("grammar", &json!(sql))).unwrap();
    for ((name, sql), says) in texts.iter().zip(says) {
        assert_eq!(says.is_some(), name == "foreign", "{name}: {says:?}: {sql}");
    }
}

/// Athena refuses a query that does not say which tenant: no view may stand in the way of that filter, and every saved
/// query has it.
#[test]
fn every_view_and_saved_query_filters_on_the_tenant() {
    let (views, queries) = (files("infra/athena/views"), files("infra/athena"));
    assert_eq!(views.len(), 4, "{:?}", views.keys());
    assert!(queries.len() >= 5 && queries.contains_key("verify_chain"), "{:?}", queries.keys());

    let mut cases: Vec<(Value, Option<&str>)> = Vec::new();
    let view = |sql: &str| json!({ "kind": "view", "sql": sql });
    let query = |sql: &str| json!({ "kind": "query", "sql": sql });
    let (select, events) = ("SELECT tenant, dt, session_id", "FROM events");
    cases.push((view(&format!("{select} {events}")), None));
    for (bad, why) in [
        (format!("SELECT dt, session_id {events}"), "without tenant"),
        (format!("SELECT tenant, session_id {events}"), "without tenant"),
        (format!("SELECT lower(tenant) AS tenant, dt {events}"), "no CAST"),
        (format!("SELECT CAST(lower(tenant) AS varchar) AS tenant, dt {events}"), "without tenant"),
        (format!("{select}, cost_usd * 2 AS double {events}"), "no CAST"),
        (format!("{select}, session_id {events}"), "twice"),
        (format!("{select} {events} GROUP BY dt, session_id"), "GROUP BY without tenant"),
        (format!("{select} {events} GROUP BY tenant, session_id"), "GROUP BY without tenant"),
        ("SELECT tenant, dt, CAST(count(*) AS bigint) AS n FROM events".to_owned(), "no GROUP BY"),
        (
            format!(
                "{select}, CAST(lag(sequence) OVER (PARTITION BY session_id ORDER BY sequence) AS bigint) AS p {events}"
            ),
            "window without tenant",
        ),
        (format!("{select} {events} LIMIT 10"), "LIMIT"),
        (format!("SELECT DISTINCT tenant, dt, session_id {events}"), "DISTINCT"),
        (format!("{select} FROM (SELECT * FROM events)"), "one SELECT"),
        (format!("{select} FROM events JOIN events AS e USING (tenant, dt)"), "reads events, once"),
        (format!("{select} FROM sessions"), "reads events, once"),
        (format!("{select} {events} WHERE session_id = ?"), "parameters"),
        (format!("{select} {events} UNION ALL {select} {events}"), "one SELECT"),
        (format!("{select} {events}; DROP TABLE events"), "one SELECT"),
    ] {
        cases.push((view(&bad), Some(why)));
    }
    let good = "SELECT session_id FROM events WHERE tenant = ? AND dt BETWEEN ? AND ?";
    cases.push((query(good), None));
    cases.push((query(&good.replace("FROM events", "FROM tool_errors")), None));
    for (bad, why) in [
        (good.replace("tenant = ?", "'a' = ?"), "no tenant"),
        (good.replace("tenant = ?", "tenant <> ?"), "no tenant"),
        (good.replace("tenant = ?", "tenant = 'a'"), "no tenant"),
        (good.replace("dt BETWEEN ? AND ?", "dt >= ?"), "no dt"),
        (good.replace(" AND dt", " OR dt"), "no tenant"),
        (
            "SELECT session_id FROM events WHERE dt BETWEEN ? AND ? AND tenant = ?".to_owned(),
            "before the tenant",
        ),
        (format!("{good} AND session_id = ?"), "other parameters"),
        ("SELECT session_id FROM events".to_owned(), "no tenant"),
        (good.replace("FROM events", "FROM events CROSS JOIN tool_errors"), "2 tables"),
        (good.replace("FROM events", "FROM somewhere.events"), "neither"),
        (format!("WITH events AS ({good}) SELECT * FROM events"), "hides"),
        (format!("SELECT * FROM events WHERE event_id IN ({good})"), "2 tables"),
    ] {
        cases.push((query(&bad), Some(why)));
    }
    let texts: Vec<_> = cases.iter().map(|(text, _)| text.clone()).collect();
    let says: Vec<Option<String>> = serde_json::from_value(script("rules", &texts.into())).unwrap();
    for ((text, expected), says) in cases.iter().zip(says) {
        let as_expected = match (&says, expected) {
            (None, None) => true,
            (Some(says), Some(why)) => says.contains(why),
            _ => false,
        };
        assert!(as_expected, "{text}: {says:?}, not {expected:?}");
    }
    // The files themselves go through the same rules whenever anything is generated from them. And as they stand:
    for (name, sql) in &queries {
        let (with, without) = (query(sql), query(&sql.replace("tenant = ? AND ", "")));
        let says: Vec<Option<String>> =
            serde_json::from_value(script("rules", &json!([with, without]))).unwrap();
        assert_eq!((&says[0], says[1].is_some()), (&None, true), "{name}");
    }
    let template = deploy::template();
    for name in views.keys() {
        let mut resources = template["Resources"].as_object().unwrap().values();
        let view = resources.find(|r| r["Properties"]["TableInput"]["Name"] == name.as_str()).unwrap();
        let columns = view["Properties"]["TableInput"]["StorageDescriptor"]["Columns"].as_array().unwrap();
        for partition in ["tenant", "dt"] {
            assert!(columns.contains(&json!({ "Name": partition, "Type": "string" })), "{name}: {partition}");
        }
    }
}
