//! Receipts in replies and in files: what `quipu verify --receipt` holds a ledger to.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use anyhow::{Context as _, ensure};
use quipu_core::verify::{GivenReceipt, read_receipts};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::failure::hinted;

#[derive(Deserialize)]
struct Receipts<'t> {
    #[serde(borrow)]
    receipts: Vec<&'t RawValue>,
}

/// The receipts of a reply, each as the server wrote it.
pub(crate) fn of_reply(reply: &str) -> anyhow::Result<Vec<String>> {
    let read: Receipts<'_> =
        serde_json::from_str(reply).context("the reply to an append holds no receipts")?;
    Ok(read.receipts.iter().map(|raw| raw.get().to_owned()).collect())
}

/// A file to which lines are added.
pub(crate) struct LineFile {
    file: File,
    shown: String,
}

impl LineFile {
    /// Opens it, and makes it if it is not there: before anything is sent, so that nothing is lost to a typing error
    /// in its name.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display().to_string();
        let file = OpenOptions::new().append(true).create(true).open(path);
        Ok(Self { file: file.with_context(|| format!("cannot write {shown}"))?, shown })
    }

    /// Adds a line.
    pub(crate) fn add(&mut self, line: &[u8]) -> anyhow::Result<()> {
        let whole = [line, b"\n"].concat();
        self.file.write_all(&whole).with_context(|| format!("cannot write {}", self.shown))
    }
}

/// A file that holds a JSON list, one receipt a line, and stays one whenever receipts are added.
pub(crate) struct ReceiptList {
    file: File,
    shown: String,
    is_empty: bool,
}

/// How the list ends.
const LIST_END: &[u8] = b"\n]\n";

impl ReceiptList {
    /// Opens it, or makes an empty one.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display().to_string();
        let cannot = || format!("cannot write {shown}");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = file.with_context(cannot)?;
        let length = file.metadata().with_context(cannot)?.len();
        let mut this = Self { file, shown: shown.clone(), is_empty: length <= 4 };
        if length == 0 {
            this.file.write_all(b"[\n]\n").with_context(cannot)?;
        } else {
            let mut end = [0; 3];
            let tail = length.min(3);
            file = this.file.try_clone().with_context(cannot)?;
            file.seek(SeekFrom::Start(length - tail)).with_context(cannot)?;
            file.read_exact(&mut end[..tail as usize]).with_context(cannot)?;
            let hint = "give the name of a file that is not there yet";
            ensure!(end == *LIST_END, hinted(format!("{shown} is not a list that an import wrote"), hint));
        }
        Ok(this)
    }

    /// Adds receipts, each as the server wrote it.
    pub(crate) fn add(&mut self, receipts: &[String]) -> anyhow::Result<()> {
        if receipts.is_empty() {
            return Ok(());
        }
        let joined = receipts.join(",\n");
        let separator = if self.is_empty { "\n" } else { ",\n" };
        let mut write = || {
            self.file.seek(SeekFrom::End(-(LIST_END.len() as i64)))?;
            self.file.write_all(format!("{separator}{joined}\n]\n").as_bytes())
        };
        write().with_context(|| format!("cannot write {}", self.shown))?;
        self.is_empty = false;
        Ok(())
    }
}

/// Receipts in a file: whatever [`read_receipts`] takes, a list of any length, or one such document a line (what
/// `quipu send --receipt` adds).
///
/// # Errors
/// If the file cannot be read.
pub(crate) fn read_file(path: &Path) -> anyhow::Result<Vec<GivenReceipt>> {
    let data = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    // Each by itself: a list longer than one document may be is still read whole.
    if let Ok(list) = serde_json::from_slice::<Vec<&RawValue>>(&data)
        && !list.is_empty()
    {
        return Ok(list.iter().flat_map(|raw| read_receipts(raw.get().as_bytes())).collect());
    }
    let lines: Vec<&[u8]> =
        data.split(|b| *b == b'\n').filter(|line| !line.trim_ascii().is_empty()).collect();
    let is_document = |line: &&[u8]| {
        line.trim_ascii_start().first() == Some(&b'{') && serde_json::from_slice::<&RawValue>(line).is_ok()
    };
    if lines.len() > 1 && lines.iter().all(is_document) {
        return Ok(lines.iter().flat_map(|line| read_receipts(line)).collect());
    }
    Ok(read_receipts(&data))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receipts_are_kept_as_written() {
        let reply = r#"{"ingested":1,"events":[],"receipts":[{"session_id":"s","sequence":0,"note":"a\n"}]}"#;
        assert_eq!(of_reply(reply).unwrap(), [r#"{"session_id":"s","sequence":0,"note":"a\n"}"#]);
        assert!(of_reply("{}").is_err());
    }

    #[test]
    fn the_list_is_json_at_any_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.json");
        let numbers = || serde_json::from_slice::<Vec<u32>>(&std::fs::read(&path).unwrap()).unwrap();
        let mut list = ReceiptList::open(&path).unwrap();
        assert_eq!(numbers(), [0u32; 0]);
        list.add(&["1".into(), "2".into()]).unwrap();
        assert_eq!(numbers(), [1, 2]);
        list.add(&[]).unwrap();
        list.add(&["3".into()]).unwrap();
        drop(list);
        ReceiptList::open(&path).unwrap().add(&["4".into()]).unwrap();
        assert_eq!(numbers(), [1, 2, 3, 4]);
        std::fs::write(&path, "precious").unwrap();
        assert!(ReceiptList::open(&path).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn lists_and_lines_are_read_one_by_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r");
        let count = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read_file(&path).unwrap().len()
        };
        assert_eq!(count("[{\"note\":\"x\"},{\"note\":\"y\"}]"), 2);
        assert_eq!(
            count("{\"receipts\":[{\"note\":\"x\"}]}\n{\"receipts\":[{\"note\":\"y\"},{\"note\":\"z\"}]}\n"),
            3
        );
        assert_eq!(count("not a note\n\nat all\n"), 1, "one that is found bad");
        assert_eq!(count(""), 1, "an empty file is no receipt");
        assert!(read_file(&dir.path().join("absent")).is_err());
    }
}
