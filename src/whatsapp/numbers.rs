//! The file of phone numbers: TOML to what each number needs, checked.

use std::path::PathBuf;

use super::CallPolicy;

/// Longest file, in bytes.
pub const FILE_BYTES_MAX: usize = 1024 * 1024;
/// Most numbers.
pub const NUMBERS_MAX: usize = 256;

/// A number as the file names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Meta's id of it.
    pub phone_number_id: String,
    /// What logs call it: the file's `name`, or a part of the id that is no phone number.
    pub name: String,
    /// Where its access token is; `None`: that of the process.
    pub access_token_file: Option<PathBuf>,
    /// Where the secret of its app is; `None`: that of the process.
    pub app_secret_file: Option<PathBuf>,
    /// What becomes of its calls.
    pub calls: CallPolicy,
    /// The `config` of its sessions, the file's own `[config]` below it: JSON, an object.
    pub config: String,
}

/// Reads the file. The error is a phrase that goes behind the file's name.
pub fn parse(text: &str) -> Result<Vec<Entry>, String> {
    let _ = text;
    todo!()
}
