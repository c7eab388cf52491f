//! Rules about who can read what nobody else should, and about the API's certificate.

use crate::config::{Config, SecretSource};

use super::{Check, Facts, SecretFact};

/// Permissions of everybody else.
pub(super) const OTHERS: u32 = 0o007;

pub(super) fn tls_files(config: &Config, facts: &Facts) -> Check {
    let name = "tls_files";
    let (Some(files), Some(read)) = (&config.tls, &facts.tls) else {
        return Check::ok(
            name,
            if config.listen.ip().is_loopback() {
                "none: the API speaks plain HTTP, to this machine alone"
            } else {
                "none: the API speaks plain HTTP, so TLS belongs in front of it (or set BRIDGE_TLS_CERT and BRIDGE_TLS_KEY)"
            },
        );
    };
    let (certificate, key) = (files.certificate.display(), files.key.display());
    match read {
        Err(why) => Check::fail(
            name,
            why,
            format!(
                "`openssl x509 -noout -subject -dates -ext subjectAltName -in {certificate}` and `openssl pkey -noout -check \
                 -in {key}`, as the bridge's user, show what they hold"
            ),
        ),
        Ok(warnings) if !warnings.is_empty() => Check::warn(
            name,
            warnings.join("; "),
            format!("put a better pair into {certificate} and {key}, and send SIGHUP"),
        ),
        Ok(_) => match facts.tls_key_mode {
            Some(mode) if mode & OTHERS != 0 => Check::warn(
                name,
                format!("every user can read the key ({:o})", mode & 0o777),
                format!("chmod 0640 {key}"),
            ),
            _ if facts.tls_key_is_roots => Check::warn(
                name,
                "only root can read the key, and the service is another user".to_owned(),
                format!("chgrp voice-media-bridge {key} && chmod 0640 {key}"),
            ),
            _ => Check::ok(name, format!("{certificate} and its key are a pair")),
        },
    }
}

/// Nothing is said of a secret that nobody set.
pub(super) fn secret(fact: &SecretFact) -> Option<Check> {
    let SecretFact { name, variable, source, mode, is_typed } = fact;
    Some(match (source, mode) {
        (SecretSource::Nowhere, _) => return None,
        (SecretSource::Setting, _) if *is_typed => Check::warn(
            name,
            format!("{variable} is on the command line, where every user of this machine sees it (ps)"),
            format!("set it in the environment, or name a file in {variable}_FILE"),
        ),
        (SecretSource::Setting, _) => Check::ok(name, format!("{variable} is in the environment")),
        (SecretSource::File(path), Some(mode)) if mode & OTHERS != 0 => Check::warn(
            name,
            format!("{variable} is in {}, which every user can read ({:o})", path.display(), mode & 0o777),
            format!("chmod 0600 {} (0640 with the bridge's group)", path.display()),
        ),
        (SecretSource::File(path), _) => Check::ok(name, format!("{variable} is in {}", path.display())),
    })
}
