//! Where the certificate of the HTTP API and its key are.

use std::path::PathBuf;

use clap::Args;

use super::ConfigError;

/// TLS on the HTTP API.
#[derive(Args, Clone, Debug, Default)]
pub struct TlsFlags {
    /// Serve https:// with the certificate in this file: PEM, the server's own first, then its chain. SIGHUP reads it again
    #[arg(long, env = "BRIDGE_TLS_CERT", value_name = "FILE", help_heading = "HTTP API")]
    pub tls_cert: Option<PathBuf>,
    /// Its private key: PEM, without a passphrase
    #[arg(long, env = "BRIDGE_TLS_KEY", value_name = "FILE", help_heading = "HTTP API")]
    pub tls_key: Option<PathBuf>,
}

/// The two files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and its chain.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl TlsFiles {
    /// The variable and the flag that name the certificate.
    pub const CERTIFICATE: &'static str = "BRIDGE_TLS_CERT (--tls-cert)";
    /// The variable and the flag that name the key.
    pub const KEY: &'static str = "BRIDGE_TLS_KEY (--tls-key)";
}

/// Both files or none. What is in them is for whoever reads them.
pub(super) fn tls(flags: TlsFlags) -> Result<Option<TlsFiles>, ConfigError> {
    let named = |path: Option<PathBuf>| path.filter(|path| !path.as_os_str().is_empty());
    let fail = |setting, other| {
        let problem = format!("is needed where {other} is set: TLS takes a certificate and its key");
        Err(ConfigError { setting, problem })
    };
    match (named(flags.tls_cert), named(flags.tls_key)) {
        (Some(certificate), Some(key)) => Ok(Some(TlsFiles { certificate, key })),
        (None, None) => Ok(None),
        (Some(_), None) => fail(TlsFiles::KEY, TlsFiles::CERTIFICATE),
        (None, Some(_)) => fail(TlsFiles::CERTIFICATE, TlsFiles::KEY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_comes_with_its_key_or_not_at_all() {
        let flags = |cert: &str, key: &str| TlsFlags { tls_cert: Some(cert.into()), tls_key: Some(key.into()) };
        assert_eq!(tls(TlsFlags::default()), Ok(None));
        assert_eq!(tls(flags("", "")), Ok(None));
        assert_eq!(tls(flags("a", "b")), Ok(Some(TlsFiles { certificate: "a".into(), key: "b".into() })));
        let error = tls(flags("a", "")).unwrap_err().to_string();
        assert!(error.starts_with("BRIDGE_TLS_KEY") && error.contains("BRIDGE_TLS_CERT"), "{error}");
        let error = tls(flags("", "b")).unwrap_err().to_string();
        assert!(error.starts_with("BRIDGE_TLS_CERT") && error.contains("BRIDGE_TLS_KEY"), "{error}");
    }
}
