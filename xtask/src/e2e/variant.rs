//! The template as it is deployed here: what differs from `infra/template.yaml`, and why. Nothing else does.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::shell::root;

/// One difference.
struct Change {
    /// The text that it changes.
    find: &'static str,
    /// How often that stands in the template: not once more, not once less.
    times: usize,
    /// What stands there instead: `{place}` is the working directory, `{0}` to `{4}` the recorders' ports.
    replace: &'static str,
}

/// The differences.
const CHANGES: [Change; 15] = [
    // The functions are built for this machine by cargo, not by `sam build` for Lambda's: SAM packs these folders.
    Change { find: "CodeUri: ../functions/ingest", times: 1, replace: "CodeUri: {place}/ingest" },
    Change { find: "CodeUri: ../functions/query", times: 1, replace: "CodeUri: {place}/query" },
    Change { find: "CodeUri: ../functions/tokens", times: 1, replace: "CodeUri: {place}/tokens" },
    Change { find: "CodeUri: ../functions/archive", times: 1, replace: "CodeUri: {place}/archive" },
    Change { find: "CodeUri: ../functions/erase", times: 1, replace: "CodeUri: {place}/erase" },
    // The emulator's IAM knows no condition key of KMS and would refuse these calls; `policy.rs` judges them instead.
    Change {
        find: "\n                Condition: { StringEquals: { 'kms:EncryptionContext:quipu': receipt-key } }",
        times: 5,
        replace: "",
    },
    Change {
        find: "\n                Condition: { StringEquals: { 'kms:MessageType': RAW, \
               'kms:SigningAlgorithm': ED25519_SHA_512 } }",
        times: 2,
        replace: "",
    },
    // The emulator is asked without TLS: it is held to the opposite, so that the policies still have their say.
    Change {
        find: "Condition: { Bool: { 'aws:SecureTransport': 'false' } }",
        times: 3,
        replace: "Condition: { Bool: { 'aws:SecureTransport': 'true' } }",
    },
    // On AWS this action covers both calls; the emulator asks for each by its own name.
    Change {
        find: "Action: [sqs:SendMessage]",
        times: 1,
        replace: "Action: [sqs:SendMessage, sqs:SendMessageBatch]",
    },
    // The emulator's CloudFormation knows no saved queries: a condition that does not hold leaves them out.
    Change {
        find: "    Type: AWS::Athena::NamedQuery\n",
        times: 5,
        replace: "    Type: AWS::Athena::NamedQuery\n    Condition: SetsUpApiLogs\n",
    },
    // Each function calls through its recorder.
    Change {
        find: "      LoggingConfig: { LogGroup: !Ref IngestLogs }\n",
        times: 1,
        replace: "      LoggingConfig: { LogGroup: !Ref IngestLogs }\n      Environment:\n        Variables:\n          \
                  AWS_ENDPOINT_URL_DYNAMODB: http://127.0.0.1:{0}\n          \
                  AWS_ENDPOINT_URL_KMS: http://127.0.0.1:{0}\n",
    },
    Change {
        find: "      LoggingConfig: { LogGroup: !Ref EraseLogs }\n",
        times: 1,
        replace: "      LoggingConfig: { LogGroup: !Ref EraseLogs }\n      Environment:\n        Variables:\n          \
                  AWS_ENDPOINT_URL_DYNAMODB: http://127.0.0.1:{4}\n          \
                  AWS_ENDPOINT_URL_KMS: http://127.0.0.1:{4}\n",
    },
    Change {
        find: "      LoggingConfig: { LogGroup: !Ref QueryLogs }\n      Environment:\n        Variables:\n",
        times: 1,
        replace: "      LoggingConfig: { LogGroup: !Ref QueryLogs }\n      Environment:\n        Variables:\n          \
                  AWS_ENDPOINT_URL_DYNAMODB: http://127.0.0.1:{1}\n          \
                  AWS_ENDPOINT_URL_KMS: http://127.0.0.1:{1}\n",
    },
    Change {
        find: "          QUIPU_BOOTSTRAP_SECRET: !Ref BootstrapSecret\n",
        times: 1,
        replace: "          QUIPU_BOOTSTRAP_SECRET: !Ref BootstrapSecret\n          \
                  AWS_ENDPOINT_URL_DYNAMODB: http://127.0.0.1:{2}\n          \
                  AWS_ENDPOINT_URL_KMS: http://127.0.0.1:{2}\n",
    },
    // And what the schedule finds is archived at once, not after a quarter of an hour.
    Change {
        find: "          QUIPU_ARCHIVE_QUEUE: !Ref ArchiveQueue\n",
        times: 1,
        replace: "          QUIPU_ARCHIVE_QUEUE: !Ref ArchiveQueue\n          QUIPU_ARCHIVE_MAX_AGE: 1s\n          \
                  AWS_ENDPOINT_URL_DYNAMODB: http://127.0.0.1:{3}\n          \
                  AWS_ENDPOINT_URL_KMS: http://127.0.0.1:{3}\n",
    },
];

/// Writes the variant; gives its path.
pub(super) fn write(place: &Path, ports: &[u16]) -> anyhow::Result<PathBuf> {
    let source = root().join("infra/template.yaml");
    let mut text = fs::read_to_string(&source).with_context(|| format!("read {}", source.display()))?;
    for change in &CHANGES {
        text = apply(&text, change, place, ports)?;
    }
    let path = place.join("template.yaml");
    fs::write(&path, text)?;
    Ok(path)
}

fn apply(text: &str, change: &Change, place: &Path, ports: &[u16]) -> anyhow::Result<String> {
    let found = text.matches(change.find).count();
    if found != change.times {
        bail!(
            "infra/template.yaml changed under xtask/src/e2e/variant.rs: {:?} stands there {found} times, not {}",
            change.find.trim(),
            change.times,
        );
    }
    let mut replace = change.replace.replace("{place}", &place.display().to_string());
    for (index, port) in ports.iter().enumerate() {
        replace = replace.replace(&format!("{{{index}}}"), &port.to_string());
    }
    Ok(text.replace(change.find, &replace))
}

/// The parameter that names this machine's processor.
pub(super) fn architecture() -> String {
    let name = if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" };
    format!("Architecture={name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_that_changed_is_not_deployed() {
        let change = Change { find: "b", times: 1, replace: "{place}/{0}" };
        let changed = |text| apply(text, &change, Path::new("/x"), &[7]);
        assert_eq!(changed("abc").unwrap(), "a/x/7c");
        for other in ["ac", "abbc"] {
            let error = changed(other).unwrap_err().to_string();
            assert!(error.contains("changed under"), "{error}");
        }
    }

    #[test]
    fn the_template_is_as_the_changes_expect() {
        let mut text = fs::read_to_string(root().join("infra/template.yaml")).unwrap();
        for change in &CHANGES {
            text = apply(&text, change, Path::new("/x"), &[1, 2, 3, 4, 5]).unwrap();
        }
        assert!(!text.contains("kms:MessageType") && text.contains("CodeUri: /x/query"));
    }
}
