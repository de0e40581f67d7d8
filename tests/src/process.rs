//! The real server as a child process.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The repository's root.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the root").to_owned()
}

/// The `quipu` binary that was built beside this test.
pub fn binary() -> PathBuf {
    let here = std::env::current_exe().expect("this test's path");
    let path = here.parent().and_then(Path::parent).expect("target/PROFILE").join("quipu");
    assert!(path.exists(), "{} is missing: run cargo xtask test, which builds it", path.display());
    path
}

/// The Python that the test command has set up with the published client.
pub fn python() -> PathBuf {
    std::env::var_os("QUIPU_TEST_PYTHON").map(PathBuf::from).expect("QUIPU_TEST_PYTHON: run cargo xtask test")
}

/// A running server. Killed when it goes out of scope.
pub struct Server {
    child: Child,
    /// Where it listens: `http://127.0.0.1:PORT`.
    pub url: String,
}

impl Server {
    /// Starts it on a free port and waits until it is ready.
    pub fn start(data: &Path, extra: &[&str]) -> Self {
        let mut command = Command::new(binary());
        command.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(data).args(extra);
        Self::spawn(command)
    }

    /// Starts it on a table, with what AWS and the table are in its environment, and waits until it is ready.
    pub fn start_aws(env: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut command = Command::new(binary());
        command.args(["serve", "--listen", "127.0.0.1:0", "--store", "aws"]).envs(env);
        Self::spawn(command)
    }

    fn spawn(mut command: Command) -> Self {
        command.env_remove("QUIPU_TOKEN").stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().expect("the server starts");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let url = loop {
            let line = lines.next().expect("it says where it listens before its output ends").expect("text");
            if let Some(at) = line.find("listening on ") {
                break line[at + "listening on ".len()..].trim().to_owned();
            }
        };
        // The pipe must not fill up.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, url }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as a power cut would end the process.
    pub fn kill(mut self) {
        self.child.kill().expect("kill -9");
        self.child.wait().expect("its end");
    }

    /// Ends it with SIGTERM; gives how long it took and whether it ended well.
    pub fn terminate(mut self) -> (Duration, bool) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let started = Instant::now();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("SIGTERM");
        let status = self.child.wait().expect("its end");
        (started.elapsed(), status.success())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
