//! Metrics as CloudWatch's embedded metric format has them: a line of JSON on standard output, no call.
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>
//!
//! Their one dimension is the function, so that two stacks do not mix. The tenant is a property beside them, not a
//! dimension: a dimension for each tenant would be a metric, and a price, for each tenant.

use quipu_core::clock::{Clock as _, SystemClock};
use quipu_core::ids::TenantId;
use serde_json::{Value, json};

/// The namespace of all metrics.
pub const NAMESPACE: &str = "Quipu";

/// What is measured, and in which of CloudWatch's units.
struct Metric {
    name: &'static str,
    unit: &'static str,
    value: i64,
}

impl Metric {
    fn line(&self, function: &str, tenant: Option<&TenantId>, at_ms: i64) -> Value {
        json!({
            "_aws": {
                "Timestamp": at_ms,
                "CloudWatchMetrics": [{
                    "Namespace": NAMESPACE,
                    "Dimensions": [["FunctionName"]],
                    "Metrics": [{ "Name": self.name, "Unit": self.unit }],
                }],
            },
            "FunctionName": function,
            "tenant": tenant.map(TenantId::as_str),
            self.name: self.value,
        })
    }

    fn write(&self, tenant: Option<&TenantId>) {
        // Lambda sets it; elsewhere nobody reads these lines.
        let function = std::env::var("AWS_LAMBDA_FUNCTION_NAME").unwrap_or_else(|_| "none".to_owned());
        println!("{}", self.line(&function, tenant, SystemClock.now().unix_ms()));
    }
}

/// How long the oldest open segment of all tenants has waited, s, and whose it is. Written at every look for work, also
/// when there is none: that it is missing says that nobody looks.
pub fn lag(seconds: i64, tenant: Option<&TenantId>) {
    Metric { name: "ArchiveLag", unit: "Seconds", value: seconds }.write(tenant);
}

/// Sessions that were found broken for the first time.
pub fn chains_broken(tenant: &TenantId, count: usize) {
    if count > 0 {
        let value = i64::try_from(count).unwrap_or(i64::MAX);
        Metric { name: "ChainsBroken", unit: "Count", value }.write(Some(tenant));
    }
}

/// A log that nobody adds to until somebody has looked.
pub fn log_damaged(tenant: &TenantId) {
    Metric { name: "LogsDamaged", unit: "Count", value: 1 }.write(Some(tenant));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_has_the_members_that_the_format_asks_for() {
        let tenant = TenantId::parse("acme").unwrap();
        let metric = Metric { name: "ArchiveLag", unit: "Seconds", value: 7 };
        let line = metric.line("quipu-archive-1", Some(&tenant), 1_770_000_000_000);
        let expected = json!({
            "_aws": {
                "Timestamp": 1_770_000_000_000_i64,
                "CloudWatchMetrics": [{
                    "Namespace": "Quipu",
                    "Dimensions": [["FunctionName"]],
                    "Metrics": [{ "Name": "ArchiveLag", "Unit": "Seconds" }],
                }],
            },
            "FunctionName": "quipu-archive-1",
            "tenant": "acme",
            "ArchiveLag": 7,
        });
        assert_eq!(line, expected);
        assert_eq!(metric.line("f", None, 0)["tenant"], Value::Null);
    }
}
