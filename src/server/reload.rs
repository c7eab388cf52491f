//! Reads the files that are read at the start and again on SIGHUP: the API's certificate with its key, its tokens, and the
//! phone numbers of WhatsApp with their secrets.
//!
//! It only reads and checks; what becomes of it is control's business.

use std::path::Path;
use std::sync::Arc;

use tracing::warn;

use crate::config::{Config, SECRET_FILE_BYTES_MAX, Secret, TlsFiles, tokens_of_file};
use crate::driver::{files, process};
use crate::messages::Reloaded;
use crate::tls::{Acceptor, PairError, PairPart};

use super::numbers;

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

/// Reads them again.
#[derive(Debug)]
pub(super) struct Reloader {
    config: Arc<Config>,
}

impl Reloader {
    pub(super) fn of(config: &Arc<Config>) -> Self {
        Self { config: Arc::clone(config) }
    }

    /// What is in files, as it is now.
    pub(super) fn read(&self) -> Reloaded {
        let config = &self.config;
        let tls = config.tls.as_ref().map(read_tls);
        if let Some(Ok(acceptor)) = &tls {
            warn_of(acceptor);
        }
        let whatsapp = if numbers::is_in_files(config) { numbers::load(config).transpose() } else { None };
        Reloaded { tls, api_tokens: config.secret_sources.api_token.file().map(read_tokens), whatsapp }
    }
}

fn read_tokens(path: &Path) -> Result<Vec<Secret>, String> {
    let name = |problem: &str| format!("{} {problem}", path.display());
    let text = files::read(path, SECRET_FILE_BYTES_MAX).map_err(|problem| name(&problem))?;
    tokens_of_file(&text.ok_or_else(|| name("does not exist"))?).map_err(|problem| name(&problem))
}
