//! A function's binary as Lambda starts it: its environment and nothing of ours.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::runtime_api::RuntimeApi;

/// A running function.
pub(crate) struct Function {
    child: Child,
    api: RuntimeApi,
    log: PathBuf,
    /// From spawn to the first `GET …/next`.
    pub(crate) init: Duration,
}

impl Function {
    /// Starts it and waits until it is ready.
    pub(crate) fn start(binary: &Path, settings: &[(String, String)], log: &Path) -> anyhow::Result<Self> {
        let api = RuntimeApi::start()?;
        let file = File::create(log)?;
        let mut command = Command::new(binary);
        command.env_clear().envs(lambda_environment(&api.address()));
        command.envs(settings.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let started = Instant::now();
        let child = command.spawn().with_context(|| format!("start {}", binary.display()))?;
        let mut this = Self { child, api, log: log.to_owned(), init: Duration::ZERO };
        let ready = this.api.ready();
        this.init = this.with_log(ready)? - started;
        Ok(this)
    }

    /// An event in, its answer out, with how long it took.
    pub(crate) fn invoke(&self, event: &serde_json::Value) -> anyhow::Result<(Duration, serde_json::Value)> {
        self.with_log(self.api.invoke(event))
    }

    /// The most memory that it has had resident so far, KiB (proc(5): VmHWM).
    pub(crate) fn peak_kib(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
        line.trim().trim_end_matches(" kB").parse().context("a number of kB")
    }

    fn with_log<T>(&self, result: anyhow::Result<T>) -> anyhow::Result<T> {
        result.with_context(|| {
            format!("its output was: {}", std::fs::read_to_string(&self.log).unwrap_or_default())
        })
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        // It waits for an event for ever.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The variables that Lambda defines for a function of its `provided` runtimes.
fn lambda_environment(api: &str) -> [(&'static str, &str); 18] {
    [
        ("AWS_LAMBDA_RUNTIME_API", api),
        ("AWS_LAMBDA_FUNCTION_NAME", "quipu"),
        ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512"),
        ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand"),
        ("AWS_LAMBDA_LOG_GROUP_NAME", "/aws/lambda/quipu"),
        ("AWS_LAMBDA_LOG_STREAM_NAME", "2026/11/22/[$LATEST]0123456789abcdef0123456789abcdef"),
        ("AWS_EXECUTION_ENV", "AWS_Lambda_provided.al2023"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "ASIAIOSFODNN7EXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
        ("AWS_SESSION_TOKEN", "of-no-use"),
        ("_HANDLER", "bootstrap"),
        ("LAMBDA_TASK_ROOT", "/var/task"),
        ("LANG", "en_US.UTF-8"),
        ("PATH", "/usr/local/bin:/usr/bin:/bin"),
        ("TZ", ":UTC"),
    ]
}
