//! Judges the recorded calls by the policies of the deployed template: the conditions that the emulator's IAM passes
//! over (it enforces actions and resources itself).

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use super::recorder::Recorder;

/// What one call does to the table: an action, on the table itself or on an index, of these partitions.
#[derive(Debug, PartialEq)]
struct Touch {
    action: String,
    index: Option<String>,
    keys: Vec<String>,
}

/// Every call is covered by a statement of its function's role, partition by partition.
pub(super) fn check(template: &Value, functions: &[(&str, &Recorder)]) -> anyhow::Result<()> {
    for (function, recorder) in functions {
        let statements = statements(template, function)?;
        let mut counts = BTreeMap::new();
        for call in recorder.calls() {
            let (service, action) = call.target.split_once('.').with_context(|| format!("{call:?}"))?;
            *counts.entry(action.to_owned()).or_insert(0) += 1;
            match service {
                "TrentService" => key_call(action, &call.body),
                "DynamoDB_20120810" => table_call(action, &call.body, &statements),
                _ => bail!("{function} calls a service that no policy names: {}", call.target),
            }
            .with_context(|| format!("{function}: {}", call.target))?;
        }
        let counts: Vec<_> = counts.iter().map(|(action, count)| format!("{action} {count}")).collect();
        eprintln!("{function} called {}", counts.join(", "));
    }
    Ok(())
}

fn statements(template: &Value, function: &str) -> anyhow::Result<Vec<Value>> {
    let mut role = function.to_owned();
    role[..1].make_ascii_uppercase();
    let policies = &template["Resources"][format!("{role}Role")]["Properties"]["Policies"];
    let policies =
        policies.as_array().with_context(|| format!("the template has no policies for {function}"))?;
    Ok(policies
        .iter()
        .filter_map(|policy| policy["PolicyDocument"]["Statement"].as_array())
        .flatten()
        .cloned()
        .collect())
}

/// The conditions that `variant.rs` takes out of the template.
fn key_call(action: &str, body: &Value) -> anyhow::Result<()> {
    let holds = match action {
        "Encrypt" | "Decrypt" => body["EncryptionContext"] == json!({ "quipu": "receipt-key" }),
        "Sign" => body["MessageType"] == "RAW" && body["SigningAlgorithm"] == "ED25519_SHA_512",
        "GetPublicKey" => true,
        _ => false,
    };
    if !holds {
        bail!("the template's condition would refuse this call on AWS");
    }
    Ok(())
}

fn table_call(action: &str, body: &Value, statements: &[Value]) -> anyhow::Result<()> {
    for touch in touches(action, body)? {
        let allowed = statements.iter().any(|statement| {
            let resource = statement["Resource"].to_string();
            let index = resource.split_once("/index/").map(|(_, name)| name.trim_end_matches(['"', '}']));
            index == touch.index.as_deref()
                && lists(&statement["Action"], &format!("dynamodb:{}", touch.action))
                && touch.keys.iter().all(|key| leads(statement, key))
        });
        if !allowed {
            bail!("no statement allows {touch:?}");
        }
    }
    Ok(())
}

fn lists(actions: &Value, action: &str) -> bool {
    actions.as_array().is_some_and(|list| list.iter().any(|one| one == action))
}

fn leads(statement: &Value, key: &str) -> bool {
    let patterns = &statement["Condition"]["ForAllValues:StringLike"]["dynamodb:LeadingKeys"];
    patterns.as_array().is_some_and(|patterns| {
        patterns.iter().filter_map(Value::as_str).any(|pattern| match pattern.strip_suffix('*') {
            Some(start) => key.starts_with(start),
            None => key == pattern,
        })
    })
}

fn touches(action: &str, body: &Value) -> anyhow::Result<Vec<Touch>> {
    let one = |action: &str, key: &Value| -> anyhow::Result<Touch> {
        let key = key["pk"]["S"].as_str().with_context(|| format!("no partition key in {key}"))?;
        Ok(Touch { action: action.to_owned(), index: None, keys: vec![key.to_owned()] })
    };
    match action {
        "PutItem" => Ok(vec![one(action, &body["Item"])?]),
        "GetItem" | "UpdateItem" => Ok(vec![one(action, &body["Key"])?]),
        "Query" => {
            let index = body["IndexName"].as_str().map(str::to_owned);
            Ok(vec![Touch { action: action.to_owned(), index, keys: vec![queried(body)?] }])
        }
        "BatchGetItem" => {
            let tables = body["RequestItems"].as_object().context("RequestItems")?;
            let keys = tables.values().filter_map(|table| table["Keys"].as_array()).flatten();
            keys.map(|key| one(action, key)).collect()
        }
        "TransactWriteItems" => {
            let items = body["TransactItems"].as_array().context("TransactItems")?;
            let inner = items.iter().filter_map(Value::as_object).flatten();
            inner
                .map(|(kind, what)| match kind.as_str() {
                    "Put" => one("PutItem", &what["Item"]),
                    "Update" => one("UpdateItem", &what["Key"]),
                    "Delete" => one("DeleteItem", &what["Key"]),
                    other => one(other, &what["Key"]),
                })
                .collect()
        }
        other => bail!("{other} is none of the calls that a function makes"),
    }
}

/// The partition that a key condition names: `pk = :p AND …`.
fn queried(body: &Value) -> anyhow::Result<String> {
    let condition = body["KeyConditionExpression"].as_str().context("KeyConditionExpression")?;
    let mut words = condition.split_whitespace();
    let (name, equals, value) = (words.next(), words.next(), words.next());
    let name = name.unwrap_or_default();
    let name = body["ExpressionAttributeNames"][name].as_str().unwrap_or(name);
    let key = value.and_then(|value| body["ExpressionAttributeValues"][value]["S"].as_str());
    match key {
        Some(key) if equals == Some("=") && matches!(name, "pk" | "f" | "o") => Ok(key.to_owned()),
        _ => bail!("a key condition that is not `pk = :p …`, `f = :f …` or `o = :o …`: {condition}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement(actions: &[&str], resource: &str, keys: &[&str]) -> Value {
        json!({ "Action": actions, "Resource": resource,
            "Condition": { "ForAllValues:StringLike": { "dynamodb:LeadingKeys": keys } } })
    }

    #[test]
    fn a_call_outside_its_partitions_is_found() {
        let statements = [
            statement(&["dynamodb:PutItem", "dynamodb:Query"], "table", &["S#*"]),
            statement(&["dynamodb:Query"], "table/index/feed", &["F#*"]),
        ];
        let put = |key: &str| json!({ "Put": { "Item": { "pk": { "S": key } } } });
        let query = |index: Value, key: &str| {
            json!({ "IndexName": index, "KeyConditionExpression": "pk = :p AND sk > :s",
                "ExpressionAttributeValues": { ":p": { "S": key } } })
        };
        let batch =
            |keys: &[&str]| json!({ "TransactItems": keys.iter().map(|k| put(k)).collect::<Vec<_>>() });
        table_call("TransactWriteItems", &batch(&["S#a", "S#b"]), &statements).unwrap();
        table_call("TransactWriteItems", &batch(&["S#a", "T#b"]), &statements).unwrap_err();
        table_call("Query", &query(Value::Null, "S#a"), &statements).unwrap();
        table_call("Query", &query(Value::Null, "F#a"), &statements).unwrap_err();
        table_call("Query", &query(json!("feed"), "F#a"), &statements).unwrap();
        table_call("Query", &query(json!("feed"), "S#a"), &statements).unwrap_err();
        table_call("Query", &query(json!("open"), "F#a"), &statements).unwrap_err();
        table_call("GetItem", &json!({ "Key": { "pk": { "S": "S#a" } } }), &statements).unwrap_err();
        table_call("Scan", &json!({}), &statements).unwrap_err();
    }

    #[test]
    fn a_key_is_used_for_its_purpose_only() {
        key_call("Decrypt", &json!({ "EncryptionContext": { "quipu": "receipt-key" } })).unwrap();
        key_call("Decrypt", &json!({})).unwrap_err();
        key_call("Sign", &json!({ "MessageType": "DIGEST", "SigningAlgorithm": "ED25519_SHA_512" }))
            .unwrap_err();
        key_call("ScheduleKeyDeletion", &json!({})).unwrap_err();
    }
}
