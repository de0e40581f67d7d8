//! `infra/template.yaml` against the code: its routes, what each function may do, and what an emulator would not
//! notice. `cargo xtask e2e` deploys it.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::Method;
use axum::response::IntoResponse as _;
use http_body_util::BodyExt as _;
use quipu_core::auth::AuthMode;
use quipu_core::config::{ArchiveConfig, ArchiverConfig};
use quipu_core::error::ErrorCode;
use quipu_core::http::{ApiError, Routes};
use quipu_core::limits;
use quipu_core::objects::Mode;
use quipu_tests::{Service, repository};
use saphyr::{LoadableYamlNode as _, Scalar, Yaml};
use serde_json::{Map, Value, json};

/// Behind the API.
const FUNCTIONS: [&str; 4] = ["Ingest", "Query", "Tokens", "Erase"];
/// With the one that a schedule and a queue call.
const ALL_FUNCTIONS: [&str; 5] = ["Ingest", "Query", "Tokens", "Erase", "Archive"];

/// The template as JSON, with the short forms of CloudFormation's functions written out.
pub(crate) fn template() -> Value {
    let text = std::fs::read_to_string(repository().join("infra/template.yaml")).unwrap();
    let documents = Yaml::load_from_str(&text).unwrap();
    assert_eq!(documents.len(), 1);
    to_json(&documents[0])
}

fn to_json(yaml: &Yaml<'_>) -> Value {
    match yaml {
        Yaml::Value(Scalar::Null) => Value::Null,
        Yaml::Value(Scalar::Boolean(value)) => json!(value),
        Yaml::Value(Scalar::Integer(value)) => json!(value),
        Yaml::Value(Scalar::FloatingPoint(value)) => json!(value.into_inner()),
        Yaml::Value(Scalar::String(value)) => json!(value),
        Yaml::Sequence(items) => items.iter().map(to_json).collect(),
        Yaml::Mapping(members) => {
            let mut out = Map::new();
            for (name, value) in members {
                let name = name.as_str().expect("names are text").to_owned();
                assert!(out.insert(name.clone(), to_json(value)).is_none(), "{name} stands twice");
            }
            out.into()
        }
        Yaml::Tagged(tag, value) => match tag.suffix.as_str() {
            "Ref" => json!({ "Ref": to_json(value) }),
            name => json!({ format!("Fn::{name}"): to_json(value) }),
        },
        other => panic!("no such thing in a template: {other:?}"),
    }
}

fn resource<'t>(template: &'t Value, name: &str) -> &'t Value {
    template["Resources"].get(name).unwrap_or_else(|| panic!("no resource {name}"))
}

/// What stands there only if a condition of the template holds: the condition, for people, and the thing.
fn unless_absent(value: &Value) -> (String, &Value) {
    let Some(branches) = value.get("Fn::If") else { return (String::new(), value) };
    assert_eq!(branches[2], json!({ "Ref": "AWS::NoValue" }), "{value}");
    (format!("if {}: ", branches[0].as_str().unwrap()), &branches[1])
}

/// One line for each permission and resource: action, resource, condition.
fn permissions(role: &Value) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    let properties = &role["Properties"];
    assert!(properties.get("ManagedPolicyArns").is_none(), "a managed policy allows more than it seems");
    for policy in properties["Policies"].as_array().unwrap() {
        for statement in policy["PolicyDocument"]["Statement"].as_array().unwrap() {
            let (when, statement) = unless_absent(statement);
            let known = ["Sid", "Effect", "Action", "Resource", "Condition"];
            for name in statement.as_object().unwrap().keys() {
                assert!(known.contains(&name.as_str()), "{name} in {statement}");
            }
            assert_eq!(statement["Effect"], "Allow");
            let condition = statement.get("Condition").map_or(String::new(), Value::to_string);
            let resources = match &statement["Resource"] {
                Value::Array(several) => several.iter().collect(),
                one => vec![one],
            };
            for action in statement["Action"].as_array().unwrap() {
                for resource in &resources {
                    let line = format!("{when}{} {resource} {condition}", action.as_str().unwrap());
                    assert!(out.insert(line.clone()), "allowed twice: {line}");
                }
            }
        }
    }
    out
}

/// What a function may do with these partitions of the table, or of its index.
fn on_keys(actions: &[&str], resource: &Value, keys: &[&str]) -> Vec<String> {
    let condition = json!({ "ForAllValues:StringLike": { "dynamodb:LeadingKeys": keys } });
    actions.iter().map(|action| format!("dynamodb:{action} {resource} {condition}")).collect()
}

fn with_key(actions: &[&str], key: &str, condition: Value) -> Vec<String> {
    let resource = json!({ "Fn::GetAtt": format!("{key}.Arn") });
    let condition = if condition.is_null() { String::new() } else { condition.to_string() };
    actions.iter().map(|action| format!("kms:{action} {resource} {condition}")).collect()
}

fn arn(resource: &str) -> Value {
    json!({ "Fn::GetAtt": format!("{resource}.Arn") })
}

fn within(resource: &str, path: &str) -> Value {
    json!({ "Fn::Sub": format!("${{{resource}.Arn}}/{path}") })
}

fn on(actions: &[&str], resource: &Value) -> Vec<String> {
    actions.iter().map(|action| format!("{action} {resource} ")).collect()
}

/// Every widening of a policy fails here first: say why in the same commit.
#[test]
fn each_function_may_do_this_and_nothing_else() {
    let template = template();
    let table = json!({ "Fn::GetAtt": "Table.Arn" });
    let (log, events) = (within("ArchiveBucket", "log/*"), within("ArchiveBucket", "events/*"));
    let receipt_key = json!({ "StringEquals": { "kms:EncryptionContext:quipu": "receipt-key" } });
    let raw_message =
        json!({ "StringEquals": { "kms:MessageType": "RAW", "kms:SigningAlgorithm": "ED25519_SHA_512" } });
    let expected = [
        vec![
            on_keys(&["GetItem", "Query"], &table, &["S#*", "I#*", "T#*", "N#*", "K#*"]),
            on_keys(&["PutItem"], &table, &["S#*", "I#*"]),
            on_keys(&["UpdateItem"], &table, &["T#*"]),
            with_key(&["Decrypt"], "SealKey", receipt_key.clone()),
        ],
        vec![
            on_keys(&["BatchGetItem", "GetItem", "Query"], &table, &["S#*", "T#*", "N#*", "K#*", "B#*"]),
            on_keys(&["Query"], &within("Table", "index/feed"), &["F#*", "L#*"]),
            on_keys(&["UpdateItem"], &table, &["T#*"]),
            on(&["s3:GetObject"], &log),
            on(&["s3:GetObject"], &events),
            on(&["s3:ListBucket"], &arn("ArchiveBucket")),
            with_key(&["Decrypt"], "SealKey", receipt_key.clone()),
        ],
        vec![
            on_keys(&["BatchGetItem", "GetItem", "Query"], &table, &["T#*", "N#*", "K#*"]),
            on_keys(&["PutItem"], &table, &["T#*", "N#*", "K#*"]),
            on_keys(&["UpdateItem"], &table, &["T#*"]),
            with_key(&["Decrypt", "Encrypt"], "SealKey", receipt_key.clone()),
            with_key(&["GetPublicKey"], "LogKey", Value::Null),
            with_key(&["Sign"], "LogKey", raw_message.clone()),
        ],
        vec![
            on_keys(&["GetItem", "Query"], &table, &["S#*", "T#*", "N#*", "K#*", "X#*"]),
            on_keys(&["Query"], &within("Table", "index/feed"), &["F#*"]),
            on_keys(&["DeleteItem", "PutItem", "UpdateItem"], &table, &["S#*", "X#*"]),
            on_keys(&["UpdateItem"], &table, &["T#*"]),
            with_key(&["Decrypt"], "SealKey", receipt_key.clone()),
        ],
        vec![
            on_keys(&["GetItem", "Query"], &table, &["S#*", "N#*", "K#*", "B#*", "X#*"]),
            on_keys(&["Query"], &within("Table", "index/open"), &["O#*"]),
            on_keys(&["PutItem"], &table, &["S#*", "B#*", "H#*", "X#*"]),
            on_keys(&["UpdateItem"], &table, &["S#*", "B#*"]),
            on_keys(&["DeleteItem"], &table, &["S#*", "X#*"]),
            with_key(&["Decrypt"], "SealKey", receipt_key),
            with_key(&["GetPublicKey"], "LogKey", Value::Null),
            with_key(&["Sign"], "LogKey", raw_message),
            on(&["s3:GetObject", "s3:PutObject"], &log),
            on(&["s3:GetObject", "s3:PutObject"], &events),
            on(&["s3:DeleteObjectVersion"], &events),
            on(&["s3:ListBucketVersions"], &arn("ArchiveBucket")),
            on(&["if Locks: s3:PutObjectRetention"], &log),
            on(&["if Locks: s3:PutObjectRetention"], &events),
            on(&["if Locks: s3:BypassGovernanceRetention", "if Locks: s3:GetObjectRetention"], &events),
            on(&["s3:DeleteObject", "s3:GetObject", "s3:PutObject"], &within("StagingBucket", "*")),
            on(&["s3:ListBucket"], &arn("ArchiveBucket")),
            on(&["s3:ListBucket"], &arn("StagingBucket")),
            on(&["sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage"], &arn("ArchiveQueue")),
            on(&["sqs:SendMessage"], &arn("ArchiveQueue")),
        ],
    ];
    for (function, expected) in ALL_FUNCTIONS.into_iter().zip(expected) {
        let logs = json!({ "Fn::GetAtt": format!("{function}Logs.Arn") });
        let mut expected: BTreeSet<_> = expected.into_iter().flatten().collect();
        expected.extend(["CreateLogStream", "PutLogEvents"].map(|a| format!("logs:{a} {logs} ")));
        let everything = json!("*");
        expected
            .extend(["PutTelemetryRecords", "PutTraceSegments"].map(|a| format!("xray:{a} {everything} ")));
        assert_eq!(permissions(resource(&template, &format!("{function}Role"))), expected, "{function}");

        let properties = &resource(&template, &format!("{function}Function"))["Properties"];
        assert_eq!(properties["Role"], json!({ "Fn::GetAtt": format!("{function}Role.Arn") }));
        assert!(properties.get("Policies").is_none(), "a role of its own has no policies of SAM's");
    }
    // Nobody else is let in by a resource of this stack, nor by a bucket.
    for (name, resource) in template["Resources"].as_object().unwrap() {
        let kind = resource["Type"].as_str().unwrap();
        let may = !matches!(
            kind,
            "AWS::Lambda::Permission" | "AWS::Lambda::Url" | "AWS::IAM::Policy" | "AWS::IAM::ManagedPolicy"
        );
        assert!(may && resource["Properties"].get("FunctionUrlConfig").is_none(), "{name}: {kind}");
        if kind.ends_with("Policy") {
            assert_eq!(kind, "AWS::S3::BucketPolicy", "{name}");
            let statements = resource["Properties"]["PolicyDocument"]["Statement"].as_array().unwrap();
            assert!(statements.iter().all(|statement| statement["Effect"] == "Deny"), "{name}");
        }
    }
}

#[tokio::test]
async fn every_route_is_an_event_of_its_function() {
    let template = template();
    let app = Service::start(AuthMode::Required).await.app;
    let routes: [fn(_) -> Routes; 4] =
        [quipu_ingest::routes, quipu_query::routes, quipu_tokens::routes, quipu_erase::routes];
    for (function, routes) in FUNCTIONS.into_iter().zip(routes) {
        let (_, table) = routes(app.clone()).into_parts();
        let of_code: BTreeSet<_> =
            table.into_iter().map(|r| (r.method, r.path.replace("{*path}", "{path+}"))).collect();
        let mut of_template = BTreeSet::new();
        let events = &resource(&template, &format!("{function}Function"))["Properties"]["Events"];
        for (name, event) in events.as_object().unwrap() {
            assert_eq!(event["Type"], "Api", "{name}");
            let event = &event["Properties"];
            assert_eq!(event["RestApiId"], json!({ "Ref": "Api" }), "{name}");
            let method = event["Method"].as_str().unwrap().to_ascii_uppercase();
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let path = event["Path"].as_str().unwrap().to_owned();
            assert!(of_template.insert((method, path)), "{name} is there twice");
        }
        assert_eq!(of_template, of_code, "{function}");
    }
}

#[test]
fn each_function_is_told_what_it_needs() {
    let template = template();
    let globals = &template["Globals"]["Function"];
    let timeout = globals["Timeout"].as_i64().unwrap();
    assert!(timeout * 1000 > limits::APPEND_DEADLINE_MS && timeout < 29, "{timeout}");
    assert_eq!(globals["Architectures"], json!([{ "Ref": "Architecture" }]));
    assert_eq!((&globals["Runtime"], &globals["Handler"]), (&json!("provided.al2023"), &json!("bootstrap")));
    let for_all = BTreeMap::from([
        ("AWS_LAMBDA_HTTP_IGNORE_STAGE_IN_PATH", json!("true")),
        ("QUIPU_LOG", json!({ "Ref": "LogFilter" })),
        ("QUIPU_SEAL_KEY", json!({ "Fn::GetAtt": "SealKey.Arn" })),
        ("QUIPU_TABLE", json!({ "Ref": "Table" })),
    ]);
    assert_eq!(globals["Environment"]["Variables"], json!(for_all));
    for function in ALL_FUNCTIONS {
        let it = resource(&template, &format!("{function}Function"));
        let crate_name = function.to_ascii_lowercase();
        assert_eq!(it["Metadata"]["BuildMethod"], "rust-cargolambda");
        assert_eq!(it["Metadata"]["BuildProperties"], json!({ "Binary": format!("quipu-{crate_name}") }));
        let properties = &it["Properties"];
        assert_eq!(properties["CodeUri"], format!("../functions/{crate_name}"));
        assert_eq!(
            properties["LoggingConfig"],
            json!({ "LogGroup": { "Ref": format!("{function}Logs") } }),
            "{function}"
        );
        let own = match function {
            "Tokens" => json!({ "Variables": {
                "QUIPU_LOG_KEY": { "Fn::GetAtt": "LogKey.Arn" },
                "QUIPU_BOOTSTRAP_SECRET": { "Ref": "BootstrapSecret" },
            }}),
            "Query" => json!({ "Variables": { "QUIPU_ARCHIVE_BUCKET": { "Ref": "ArchiveBucket" } } }),
            "Archive" => json!({ "Variables": {
                "QUIPU_LOG_KEY": { "Fn::GetAtt": "LogKey.Arn" },
                "QUIPU_ARCHIVE_BUCKET": { "Ref": "ArchiveBucket" },
                "QUIPU_STAGING_BUCKET": { "Ref": "StagingBucket" },
                "QUIPU_ARCHIVE_QUEUE": { "Ref": "ArchiveQueue" },
                "QUIPU_HOT_RETENTION": { "Ref": "HotRetention" },
                "QUIPU_LOCK_DAYS": { "Fn::If": ["Locks", { "Ref": "LockDays" }, { "Ref": "AWS::NoValue" }] },
                "QUIPU_LOCK_LOG": { "Fn::If": ["Locks", { "Ref": "LogLock" }, { "Ref": "AWS::NoValue" }] },
            }}),
            _ => Value::Null,
        };
        assert_eq!(properties.get("Environment").unwrap_or(&Value::Null), &own, "{function}");
        let logs = &resource(&template, &format!("{function}Logs"))["Properties"];
        assert_eq!(logs["RetentionInDays"], json!({ "Ref": "LogRetentionDays" }));
    }
    let secret = &template["Parameters"]["BootstrapSecret"];
    assert_eq!((&secret["NoEcho"], &secret["MinLength"]), (&json!(true), &json!(16)));
    assert!(secret.get("Default").is_none(), "a secret that everybody knows");
}

/// The emulator drops half of these settings, and would deploy the stack without them.
#[test]
fn the_table_and_the_keys_are_kept_and_guarded() {
    let template = template();
    for name in ["Table", "SealKey", "LogKey"] {
        let it = resource(&template, name);
        assert_eq!((&it["DeletionPolicy"], &it["UpdateReplacePolicy"]), (&json!("Retain"), &json!("Retain")));
    }
    assert_eq!(
        resource(&template, "Table")["Properties"],
        json!({
            "BillingMode": "PAY_PER_REQUEST",
            "DeletionProtectionEnabled": { "Ref": "DeletionProtection" },
            "PointInTimeRecoverySpecification": { "PointInTimeRecoveryEnabled": true },
            "SSESpecification": { "SSEEnabled": true },
            "TimeToLiveSpecification": { "AttributeName": "ttl", "Enabled": true },
            "AttributeDefinitions": [
                { "AttributeName": "pk", "AttributeType": "S" },
                { "AttributeName": "sk", "AttributeType": "S" },
                { "AttributeName": "f", "AttributeType": "S" },
                { "AttributeName": "o", "AttributeType": "S" },
                { "AttributeName": "c", "AttributeType": "B" },
            ],
            "KeySchema": [
                { "AttributeName": "pk", "KeyType": "HASH" },
                { "AttributeName": "sk", "KeyType": "RANGE" },
            ],
            "GlobalSecondaryIndexes": [{
                "IndexName": "feed",
                "KeySchema": [
                    { "AttributeName": "f", "KeyType": "HASH" },
                    { "AttributeName": "c", "KeyType": "RANGE" },
                ],
                "Projection": { "ProjectionType": "INCLUDE", "NonKeyAttributes": ["m"] },
            }, {
                "IndexName": "open",
                "KeySchema": [
                    { "AttributeName": "o", "KeyType": "HASH" },
                    { "AttributeName": "c", "KeyType": "RANGE" },
                ],
                "Projection": { "ProjectionType": "INCLUDE", "NonKeyAttributes": ["z"] },
            }],
        })
    );
    assert_eq!(template["Parameters"]["DeletionProtection"]["Default"], "true");
    let seal = &resource(&template, "SealKey")["Properties"];
    assert_eq!(seal["EnableKeyRotation"], true);
    let log = &resource(&template, "LogKey")["Properties"];
    assert_eq!((&log["KeySpec"], &log["KeyUsage"]), (&json!("ECC_NIST_EDWARDS25519"), &json!("SIGN_VERIFY")));
    for key in [seal, log] {
        // The account alone: its IAM decides, by the roles above.
        let statements = key["KeyPolicy"]["Statement"].as_array().unwrap();
        assert_eq!(statements.len(), 1);
        let account = json!({ "Fn::Sub": "arn:${AWS::Partition}:iam::${AWS::AccountId}:root" });
        assert_eq!(statements[0]["Principal"], json!({ "AWS": account }));
    }
}

/// What a value of a parameter gives the function, the code must take.
#[test]
fn the_archive_function_understands_the_parameters() {
    let template = template();
    let parameters = &template["Parameters"];
    let off = json!({ "Fn::Equals": [{ "Ref": "LogLock" }, "off"] });
    assert_eq!(template["Conditions"]["Locks"], json!({ "Fn::Not": [off] }));
    let read = |set: &[(&str, &str)]| {
        let fixed = ["QUIPU_ARCHIVE_BUCKET", "QUIPU_STAGING_BUCKET", "QUIPU_ARCHIVE_QUEUE"];
        let set: BTreeMap<_, _> = fixed.map(|name| (name, "x")).iter().chain(set).copied().collect();
        let variable = |name: &str| set.get(name).map(|value| (*value).to_owned());
        (ArchiverConfig::read(variable), ArchiveConfig::read(variable))
    };
    assert_eq!(parameters["LogLock"]["Default"], "off");
    assert_eq!(read(&[]).0.unwrap().lock, None);
    for mode in parameters["LogLock"]["AllowedValues"].as_array().unwrap() {
        for days in ["Default", "MinValue", "MaxValue"].map(|name| &parameters["LockDays"][name]) {
            let (mode, days) = (mode.as_str().unwrap(), days.to_string());
            if mode != "off" {
                let config = read(&[("QUIPU_LOCK_LOG", mode), ("QUIPU_LOCK_DAYS", &days)]).0.unwrap();
                let lock = config.lock.unwrap();
                assert_eq!(lock.days.to_string(), days);
                assert_eq!(lock.events, Mode::Governance, "compliance would stand against an erasure");
                assert_eq!(lock.log == Mode::Compliance, mode == "compliance");
                assert_ne!(lock.log, Mode::None);
            }
        }
    }
    assert_eq!(parameters["HotRetention"]["Default"], "off");
    assert_eq!(parameters["HotRetention"]["AllowedPattern"], "off|[1-9][0-9]{0,3}d");
    for (value, kept_ms) in [("off", None), ("1d", Some(86_400_000)), ("9999d", Some(9999 * 86_400_000))] {
        let config = read(&[("QUIPU_HOT_RETENTION", value)]).1.unwrap();
        assert_eq!(config.settings.hot_retention_ms, kept_ms, "{value}");
    }
}

/// The emulator knows neither projection nor limits, and refuses a query for no reason of the tenant's.
#[test]
fn a_query_names_its_tenant_and_ends_at_the_limit() {
    let template = template();
    let table = &resource(&template, "EventsTable")["Properties"]["TableInput"];
    let partition = |name: &str| json!({ "Name": name, "Type": "string" });
    assert_eq!(table["PartitionKeys"], json!([partition("tenant"), partition("dt")]));
    assert_eq!(
        table["Parameters"],
        json!({
            "classification": "parquet",
            "projection.enabled": "true",
            "projection.tenant.type": "injected",
            "projection.dt.type": "date",
            "projection.dt.format": "yyyy-MM-dd",
            "projection.dt.range": "2026-01-01,NOW+1DAYS",
            "storage.location.template":
                { "Fn::Sub": "s3://${ArchiveBucket}/events/tenant=${!tenant}/dt=${!dt}" },
        })
    );
    let workgroup = &resource(&template, "SqlWorkgroup")["Properties"]["WorkGroupConfiguration"];
    assert_eq!(workgroup["EnforceWorkGroupConfiguration"], true);
    assert_eq!(workgroup["BytesScannedCutoffPerQuery"], json!({ "Ref": "ScanLimit" }));
    // Athena's own least is 10 MB.
    let limit = &template["Parameters"]["ScanLimit"];
    assert_eq!((&limit["MinValue"], &limit["Default"]), (&json!(10_000_000), &json!(10_000_000_000_i64)));
    let place = json!({ "Fn::Sub": "s3://${SqlResultsBucket}/" });
    assert_eq!(workgroup["ResultConfiguration"]["OutputLocation"], place);
    for (name, resource) in template["Resources"].as_object().unwrap() {
        let properties = &resource["Properties"];
        match resource["Type"].as_str().unwrap() {
            "AWS::Glue::Table" => {
                assert_eq!(properties["DatabaseName"], json!({ "Ref": "SqlDatabase" }), "{name}")
            }
            "AWS::Athena::NamedQuery" => {
                assert_eq!(properties["Database"], json!({ "Ref": "SqlDatabase" }), "{name}");
                assert_eq!(properties["WorkGroup"], json!({ "Ref": "SqlWorkgroup" }), "{name}");
            }
            _ => {}
        }
    }
}

/// The emulator drops most of these settings.
#[test]
fn the_archive_is_kept_and_guarded() {
    let template = template();
    for name in ["ArchiveBucket", "ArchiveBucketPolicy"] {
        let it = resource(&template, name);
        assert_eq!((&it["DeletionPolicy"], &it["UpdateReplacePolicy"]), (&json!("Retain"), &json!("Retain")));
    }
    let everything = json!({
        "BlockPublicAcls": true,
        "BlockPublicPolicy": true,
        "IgnorePublicAcls": true,
        "RestrictPublicBuckets": true,
    });
    let sealed = json!([{ "ServerSideEncryptionByDefault": { "SSEAlgorithm": "AES256" } }]);
    for name in ["ArchiveBucket", "StagingBucket", "SqlResultsBucket"] {
        let properties = &resource(&template, name)["Properties"];
        assert_eq!(properties["PublicAccessBlockConfiguration"], everything, "{name}");
        let owner = json!([{ "ObjectOwnership": "BucketOwnerEnforced" }]);
        assert_eq!(properties["OwnershipControls"]["Rules"], owner, "{name}");
        assert_eq!(properties["BucketEncryption"]["ServerSideEncryptionConfiguration"], sealed, "{name}");
        let policy = &resource(&template, &format!("{name}Policy"))["Properties"];
        assert_eq!(policy["Bucket"], json!({ "Ref": name }));
        let tls_only = json!([{
            "Sid": "TlsOnly",
            "Effect": "Deny",
            "Principal": "*",
            "Action": "s3:*",
            "Resource": [arn(name), within(name, "*")],
            "Condition": { "Bool": { "aws:SecureTransport": "false" } },
        }]);
        assert_eq!(policy["PolicyDocument"]["Statement"], tls_only);
    }
    let archive = &resource(&template, "ArchiveBucket")["Properties"];
    assert_eq!(archive["ObjectLockEnabled"], true);
    assert_eq!(archive["VersioningConfiguration"], json!({ "Status": "Enabled" }));
    // What is to be kept has no day on which it goes, and each object says itself how long it is locked.
    for name in ["LifecycleConfiguration", "ObjectLockConfiguration"] {
        assert!(archive.get(name).is_none(), "{name}");
    }
    for (name, days) in [("StagingBucket", 1), ("SqlResultsBucket", 7)] {
        let swept = &resource(&template, name)["Properties"];
        for setting in ["ObjectLockEnabled", "VersioningConfiguration"] {
            assert!(swept.get(setting).is_none(), "{name}, {setting}: what is swept must be gone");
        }
        let rules = swept["LifecycleConfiguration"]["Rules"].as_array().unwrap();
        assert_eq!(rules.len(), 1);
        assert_eq!((&rules[0]["Status"], &rules[0]["ExpirationInDays"]), (&json!("Enabled"), &json!(days)));
        assert_eq!(rules[0]["AbortIncompleteMultipartUpload"], json!({ "DaysAfterInitiation": 1 }));
        assert!(rules[0].get("Prefix").or(rules[0].get("Filter")).is_none(), "of everything");
    }
}

#[test]
fn the_archiver_is_woken_and_what_fails_is_put_aside() {
    let template = template();
    let function = &resource(&template, "ArchiveFunction")["Properties"];
    let timeout = function["Timeout"].as_i64().unwrap();
    assert_eq!(timeout, 900, "a run may go on beginning batches for 10 min, and must end the last one");
    assert_eq!(
        function["Events"],
        json!({
            "EveryMinute": { "Type": "Schedule", "Properties": { "Schedule": "rate(1 minute)" } },
            "Tenants": { "Type": "SQS", "Properties": {
                "Queue": arn("ArchiveQueue"),
                "BatchSize": 1,
                "FunctionResponseTypes": ["ReportBatchItemFailures"],
            }},
        })
    );
    let queue = &resource(&template, "ArchiveQueue")["Properties"];
    let visibility = queue["VisibilityTimeout"].as_i64().unwrap();
    assert!(visibility >= 6 * timeout, "{visibility}");
    let redrive = &queue["RedrivePolicy"];
    assert_eq!(redrive["deadLetterTargetArn"], arn("ArchiveDeadLetters"));
    let deliveries = redrive["maxReceiveCount"].as_i64().unwrap();
    assert_eq!(deliveries, 3);
    let kept = queue["MessageRetentionPeriod"].as_i64().unwrap();
    assert!(kept > deliveries * visibility, "what fails would be gone before it is put aside");
    let dead = &resource(&template, "ArchiveDeadLetters")["Properties"];
    assert_eq!(dead["MessageRetentionPeriod"], 14 * 24 * 60 * 60);
    for queue in [queue, dead] {
        assert_eq!(queue["SqsManagedSseEnabled"], true);
    }
}

/// An alarm on a metric that nobody writes never sounds.
#[test]
fn the_alarms_stand_on_what_is_measured() {
    let template = template();
    let source = std::fs::read_to_string(repository().join("functions/archive/src/metrics.rs")).unwrap();
    for written in [r#"NAMESPACE: &str = "Quipu""#, r#""Dimensions": [["FunctionName"]]"#] {
        assert!(source.contains(written), "{written}");
    }
    let of_function = json!([{ "Name": "FunctionName", "Value": { "Ref": "ArchiveFunction" } }]);
    let mut ours = BTreeMap::new();
    for (name, it) in template["Resources"].as_object().unwrap() {
        if it["Type"] != "AWS::CloudWatch::Alarm" {
            continue;
        }
        let alarm = &it["Properties"];
        let told =
            json!({ "Fn::If": ["HasAlarmTopic", [{ "Ref": "AlarmTopic" }], { "Ref": "AWS::NoValue" }] });
        assert_eq!(alarm["AlarmActions"], told, "{name}");
        if alarm["Namespace"] == "Quipu" {
            assert_eq!(alarm["Dimensions"], of_function, "{name}");
            let metric = alarm["MetricName"].as_str().unwrap();
            assert!(source.contains(&format!("name: \"{metric}\"")), "{name}: {metric}");
            let sounds = [&alarm["Statistic"], &alarm["Threshold"], &alarm["TreatMissingData"]];
            ours.insert(metric, sounds.map(Value::to_string).join(" "));
        }
    }
    let expected = [
        ("ArchiveLag", r#""Maximum" 3600 "breaching""#),
        ("ChainsBroken", r#""Sum" 0 "notBreaching""#),
        ("LogsDamaged", r#""Sum" 0 "notBreaching""#),
    ];
    assert_eq!(ours, expected.map(|(metric, sounds)| (metric, sounds.to_owned())).into());
    let dead = &resource(&template, "DeadLetters")["Properties"];
    assert_eq!((&dead["Namespace"], &dead["Threshold"]), (&json!("AWS/SQS"), &json!(0)));
    assert_eq!(dead["MetricName"], "ApproximateNumberOfMessagesVisible");
    let queue = json!({ "Fn::GetAtt": "ArchiveDeadLetters.QueueName" });
    assert_eq!(dead["Dimensions"], json!([{ "Name": "QueueName", "Value": queue }]));
}

#[test]
fn the_api_keeps_bodies_intact_and_notes_no_queries() {
    let template = template();
    let api = &resource(&template, "Api")["Properties"];
    assert_eq!(api["BinaryMediaTypes"], json!(["*~1*"]));
    assert_eq!(api["EndpointConfiguration"], json!({ "Type": "REGIONAL" }));
    assert_eq!(api["SecurityPolicy"], "SecurityPolicy_TLS13_1_2_2021_06");
    // With it API Gateway would unpack gzip bodies by itself, and repack answers.
    assert!(api.get("MinimumCompressionSize").is_none());
    let throttle = &api["MethodSettings"][0];
    assert_eq!((&throttle["ResourcePath"], &throttle["HttpMethod"]), (&json!("/*"), &json!("*")));
    assert_eq!(throttle["ThrottlingRateLimit"], json!({ "Ref": "ThrottleRate" }));
    assert!(throttle.get("DataTraceEnabled").is_none(), "it logs whole requests, tokens included");
    let format = api["AccessLogSetting"]["Fn::If"][1]["Format"].as_str().unwrap();
    let line: Map<String, Value> = serde_json::from_str(format).unwrap();
    for (name, value) in line {
        let value = value.as_str().unwrap();
        assert!(value.starts_with("$context."), "{name}: {value}");
        for tells in ["$context.path", "querystring", "authorizer", "$context.error.message"] {
            assert!(!value.contains(tells), "{name}: {value}");
        }
    }
}

/// What API Gateway answers by itself is what the routers would have answered.
#[tokio::test]
async fn the_gateway_answers_in_our_shape() {
    let template = template();
    let not_found = || ApiError::because(ErrorCode::NotFound, "Not found");
    let too_large = format!(
        "the body is over the 10 MB that API Gateway takes, body_bytes_max is {}",
        limits::BODY_BYTES_MAX
    );
    let expected = BTreeMap::from([
        ("DEFAULT_4XX", (404, not_found())),
        ("DEFAULT_5XX", (503, ApiError::new(ErrorCode::OutcomeUnknown))),
        ("MISSING_AUTHENTICATION_TOKEN", (404, not_found())),
        ("QUOTA_EXCEEDED", (429, ApiError::new(ErrorCode::Busy))),
        ("REQUEST_TOO_LARGE", (413, ApiError::because(ErrorCode::TooLarge, too_large))),
        ("RESOURCE_NOT_FOUND", (404, not_found())),
        ("THROTTLED", (429, ApiError::new(ErrorCode::Busy))),
    ]);
    let given = resource(&template, "Api")["Properties"]["GatewayResponses"].as_object().unwrap();
    assert_eq!(given.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, (status, error)) in expected {
        let ours = error.into_response();
        let retries = ours.headers().contains_key("retry-after");
        let body = ours.into_body().collect().await.unwrap().to_bytes();
        let mut ours: Value = serde_json::from_slice(&body).unwrap();
        ours["status"] = status.into();
        ours["request_id"] = "$context.requestId".into();
        let given = &given[name];
        assert_eq!(given["StatusCode"], status, "{name}");
        let text = given["ResponseTemplates"]["application/json"].as_str().unwrap();
        assert_eq!(serde_json::from_str::<Value>(text).unwrap(), ours, "{name}");
        let headers = &given["ResponseParameters"]["Headers"];
        assert_eq!(headers["Content-Type"], "'application/problem+json'", "{name}");
        assert_eq!(headers["X-Content-Type-Options"], "'nosniff'", "{name}");
        assert_eq!(headers.get("Retry-After").is_some(), retries, "{name}");
    }
}
