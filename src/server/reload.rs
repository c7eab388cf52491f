//! Reads the files that are read at the start and again on SIGHUP: the API's certificate with its key, and its tokens.
//!
//! It only reads and checks; what becomes of it is control's business.

use std::path::{Path, PathBuf};

use tracing::warn;

use crate::config::{Config, SECRET_FILE_BYTES_MAX, Secret, TlsFiles, tokens_of_file};
use crate::driver::{files, process};
use crate::messages::Reloaded;
use crate::tls::{Acceptor, PairError, PairPart};

/// Reads a certificate and its key. The error names the setting and the file, and says what to do.
pub fn read_tls(paths: &TlsFiles) -> Result<Acceptor, String> {
    let certificate = read(TlsFiles::CERTIFICATE, &paths.certificate, Acceptor::PEM_BYTES_MAX)?;
    let key = read(TlsFiles::KEY, &paths.key, Acceptor::PEM_BYTES_MAX)?;
    Acceptor::from_pem(&certificate, &key).map_err(|PairError { part, problem }| {
        let (setting, path) = match part {
            PairPart::Certificate => (TlsFiles::CERTIFICATE, &paths.certificate),
            PairPart::Key => (TlsFiles::KEY, &paths.key),
        };
        format!("{setting} names {}, which {problem}", path.display())
    })
}

/// What clients will complain about, a sentence each.
pub fn warnings(acceptor: &Acceptor) -> Vec<String> {
    let now_sec = process::unix_sec() as u64;
    acceptor.certificate().map_or_else(Vec::new, |certificate| certificate.warnings(now_sec))
}

/// Logs them.
pub(super) fn warn_of(acceptor: &Acceptor) {
    for warning in warnings(acceptor) {
        warn!("{warning}");
    }
}

fn read(setting: &str, path: &Path, bytes_max: usize) -> Result<Vec<u8>, String> {
    let name = |problem: &str| format!("{setting} names {}, which {problem}", path.display());
    files::read(path, bytes_max).map_err(|problem| name(&problem))?.ok_or_else(|| name("does not exist"))
}

/// Which files are read again.
#[derive(Debug)]
pub(super) struct Reloader {
    tls: Option<TlsFiles>,
    api_tokens: Option<PathBuf>,
}

impl Reloader {
    pub(super) fn of(config: &Config) -> Self {
        Self { tls: config.tls.clone(), api_tokens: config.secret_sources.api_token.file().map(Path::to_owned) }
    }

    /// Reads them.
    pub(super) fn read(&self) -> Reloaded {
        let tls = self.tls.as_ref().map(read_tls);
        if let Some(Ok(acceptor)) = &tls {
            warn_of(acceptor);
        }
        Reloaded { tls, api_tokens: self.api_tokens.as_deref().map(read_tokens), whatsapp: None }
    }
}

fn read_tokens(path: &Path) -> Result<Vec<Secret>, String> {
    let name = |problem: &str| format!("{} {problem}", path.display());
    let text = files::read(path, SECRET_FILE_BYTES_MAX).map_err(|problem| name(&problem))?;
    tokens_of_file(&text.ok_or_else(|| name("does not exist"))?).map_err(|problem| name(&problem))
}
