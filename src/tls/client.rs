//! TLS as a client.
//!
//! Certificates are always verified, against the authorities of this machine where it has any and the bundled ones of
//! Mozilla where it has none (a bare container).

use std::fmt;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, ClientConnection, Error, RootCertStore};

/// What every TLS connection shares: trusted authorities and resumable sessions. Built once; clones share it.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ClientConfig>,
    roots: usize,
    bundled: bool,
}

impl Tls {
    /// Trusts the authorities of this machine, read from its files, or the bundled ones when it has none.
    pub fn new() -> Result<Self, String> {
        let mut store = RootCertStore::empty();
        let (mut roots, _unusable) = store.add_parsable_certificates(machine_roots().into_iter().map(Into::into));
        let bundled = roots == 0;
        if bundled {
            store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
            roots = store.len();
        }
        Self::build(store, roots, bundled)
    }

    /// Trusts these authorities alone, each a certificate in DER. For tests and private servers.
    pub fn with_roots(certificates: impl IntoIterator<Item = Vec<u8>>) -> Result<Self, String> {
        let mut store = RootCertStore::empty();
        for der in certificates {
            store.add(CertificateDer::from(der)).map_err(|error| format!("not a root certificate: {error}"))?;
        }
        let roots = store.len();
        Self::build(store, roots, false)
    }

    fn build(store: RootCertStore, roots: usize, bundled: bool) -> Result<Self, String> {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS cannot be set up: {error}"))?
            .with_root_certificates(store)
            .with_no_client_auth();
        config.alpn_protocols = vec![super::ALPN.to_vec()];
        Ok(Self { config: Arc::new(config), roots, bundled })
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tls({} {} roots)", self.roots, if self.bundled { "bundled" } else { "system" })
    }
}

/// The one crypto provider of this program, for other clients that speak TLS.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// The authorities that this machine trusts, each in DER, as its files hold them; empty in a bare container.
pub(crate) fn machine_roots() -> Vec<Vec<u8>> {
    rustls_native_certs::load_native_certs().certs.iter().map(|der| der.to_vec()).collect()
}

/// What a TLS client's I/O error means and what to do about it; `None` when it is not TLS that failed.
pub(crate) fn explain(error: &std::io::Error, host: &str) -> Option<String> {
    Some(words(error.get_ref()?.downcast_ref::<Error>()?, host))
}

/// The certificates of a file in PEM, each in DER; at least one. The error is a phrase that goes behind the file's name.
pub fn certificates(text: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let found =
        CertificateDer::pem_slice_iter(text).map(|der| der.map(|der| der.to_vec())).collect::<Result<Vec<_>, _>>();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err("holds no certificate in PEM (-----BEGIN CERTIFICATE-----)".into()),
    }
}

/// One connection, the client's end.
#[derive(Debug)]
pub struct ClientSession {
    connection: ClientConnection,
    host: String,
}

impl ClientSession {
    /// Starts the handshake with `host`, a name or an address; the ClientHello waits in [`ClientSession::seal`].
    pub fn new(tls: &Tls, host: &str) -> Result<Self, String> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| format!("{host:?} is not a host name"))?;
        let mut connection = ClientConnection::new(Arc::clone(&tls.config), name).map_err(|error| error.to_string())?;
        // What is unwritten is bounded where it is counted, over all connections alike.
        connection.set_buffer_limit(None);
        Ok(Self { connection, host: host.to_owned() })
    }

    /// Whether the handshake is still under way.
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Decrypts what came and appends it to `plain`. `Ok(true)`: the other end closed TLS, nothing comes any more.
    pub fn open(&mut self, sealed: &[u8], plain: &mut Vec<u8>) -> Result<bool, String> {
        super::open(&mut self.connection, sealed, plain).map_err(|error| words(&error, &self.host))
    }

    /// Appends to `sealed` what the handshake has to say, and `plain` encrypted. There is no `plain` before the handshake is
    /// done.
    pub fn seal(&mut self, plain: &[u8], sealed: &mut Vec<u8>) {
        super::seal(&mut self.connection, plain, sealed);
    }

    /// Queues the end of our side.
    pub fn close(&mut self) {
        self.connection.send_close_notify();
    }
}

/// A TLS error in words that say what to do about it.
fn words(error: &Error, host: &str) -> String {
    match error {
        Error::InvalidCertificate(certificate) => match certificate {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                format!("the certificate of {host} has expired (or this machine's clock is wrong)")
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                format!("the certificate of {host} is not valid yet (or this machine's clock is wrong)")
            }
            CertificateError::UnknownIssuer => {
                format!("the certificate of {host} is from an authority that this machine does not trust")
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                format!("the certificate is not for {host}")
            }
            CertificateError::Revoked => format!("the certificate of {host} is revoked"),
            other => format!("the certificate of {host} is not acceptable: {other}"),
        },
        Error::AlertReceived(alert) => format!("{host} refused the handshake: {alert:?}"),
        Error::InvalidMessage(_) => {
            format!("{host} does not speak TLS on this port, or the bytes were changed: {error}")
        }
        Error::PeerIncompatible(_) => format!("{host} offers no TLS version or cipher that is acceptable: {error}"),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_are_found_on_any_machine() {
        let tls = Tls::new().unwrap();
        assert!(tls.roots > 0, "{tls:?}");
    }

    #[test]
    fn a_certificate_that_is_none_is_refused() {
        assert!(Tls::with_roots([b"not a certificate".to_vec()]).unwrap_err().contains("not a root certificate"));
    }

    #[test]
    fn a_host_that_is_no_name_is_refused() {
        let tls = Tls::new().unwrap();
        assert!(ClientSession::new(&tls, "exa mple").unwrap_err().contains("not a host name"));
        assert!(ClientSession::new(&tls, "192.0.2.1").is_ok() && ClientSession::new(&tls, "2001:db8::1").is_ok());
    }
}
