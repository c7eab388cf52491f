//! TLS as a server: the certificate that is shown, and one connection.
//!
//! Clients are not asked for certificates. Sessions are resumed by tickets, so nothing is kept for a client that has gone;
//! each [`Acceptor`] makes keys of its own for them, so a certificate that was replaced is not resumed past.

use std::fmt;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::NoServerSessionStorage;
use rustls::sign::SingleCertAndKey;
use rustls::{Error, HandshakeKind, ServerConfig, ServerConnection};

use super::pair::{self, Certificate, PairError, PairPart};

/// Longest file of a certificate chain or key taken, in bytes. Chains are below 20 KiB.
pub(super) const PEM_BYTES_MAX: usize = 256 * 1024;

/// What every connection of a server shares. Built once for each certificate; clones share it.
#[derive(Clone)]
pub struct Acceptor {
    config: Arc<ServerConfig>,
    certificate: Option<Certificate>,
}

impl Acceptor {
    /// Longest file of either kind, in bytes.
    pub const PEM_BYTES_MAX: usize = PEM_BYTES_MAX;

    /// Takes a certificate with its chain and its key, both in PEM.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, PairError> {
        let (certified, certificate) = pair::read(chain, key)?;
        let unusable = |error: Error| {
            let problem = format!("cannot be used for TLS: {error}");
            PairError { part: PairPart::Certificate, problem }
        };
        let mut config = ServerConfig::builder_with_provider(super::provider())
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = vec![super::ALPN.to_vec()];
        config.ticketer = Ticketer::new().map_err(unusable)?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self { config: Arc::new(config), certificate })
    }

    /// What is known of the certificate; `None` where its dates cannot be read.
    pub fn certificate(&self) -> Option<&Certificate> {
        self.certificate.as_ref()
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Acceptor({:?})", self.certificate)
    }
}

/// One connection, the server's end.
#[derive(Debug)]
pub struct ServerSession(ServerConnection);

impl ServerSession {
    /// A connection of which nothing has come yet.
    pub fn new(acceptor: &Acceptor) -> Self {
        let connection = ServerConnection::new(Arc::clone(&acceptor.config));
        let mut connection = connection.expect("fails only for a configuration of QUIC or without a provider");
        // What is unwritten is bounded by its owner: one response at a time.
        connection.set_buffer_limit(None);
        Self(connection)
    }

    /// Whether the handshake is still under way.
    pub fn is_handshaking(&self) -> bool {
        self.0.is_handshaking()
    }

    /// Whether the handshake resumed an earlier session.
    pub fn is_resumed(&self) -> bool {
        self.0.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Decrypts what came and appends it to `plain`. `Ok(true)`: the other end closed TLS, nothing comes any more. After an
    /// error [`ServerSession::seal`] has the alert that tells it, and nothing else.
    pub fn open(&mut self, sealed: &[u8], plain: &mut Vec<u8>) -> Result<bool, String> {
        super::open(&mut self.0, sealed, plain).map_err(|error| words(&error))
    }

    /// Appends to `sealed` what the handshake has to say, and `plain` encrypted. What is given before the handshake is done
    /// is kept until it is.
    pub fn seal(&mut self, plain: &[u8], sealed: &mut Vec<u8>) {
        super::seal(&mut self.0, plain, sealed);
    }

    /// Queues the end of our side.
    pub fn close(&mut self) {
        self.0.send_close_notify();
    }
}

/// What went wrong with a client, in words for whoever runs the server.
fn words(error: &Error) -> String {
    match error {
        Error::AlertReceived(alert) => format!("the client refused: {alert:?}"),
        Error::InvalidMessage(_) => "what came is not TLS".into(),
        Error::NoApplicationProtocol => "the client speaks none of our protocols inside TLS (http/1.1)".into(),
        Error::PeerIncompatible(why) => format!("the client offers no TLS version or cipher of ours: {why:?}"),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
