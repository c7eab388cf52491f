//! Certificates for tests, and the other end of a connection.

use std::sync::Arc;

use base64_simd::STANDARD;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection};

/// A certificate for `localhost`, valid until the end of a year.
pub(crate) struct Identity {
    pub(crate) der: Vec<u8>,
    pub(crate) certificate_pem: String,
    pub(crate) key_pem: String,
    config: Arc<ServerConfig>,
}

impl Identity {
    pub(crate) fn until(year: i32) -> Self {
        Self::with_key(year, &KeyPair::generate().unwrap())
    }

    pub(crate) fn with_key(year: i32, key: &KeyPair) -> Self {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, format!("until {year}"));
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(year, 12, 31);
        let certificate = params.self_signed(key).unwrap();
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let mut config = ServerConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Self {
            der: certificate.der().to_vec(),
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            config: Arc::new(config),
        }
    }

    /// The server's end of a new connection.
    pub(crate) fn accept(&self) -> ServerConnection {
        ServerConnection::new(Arc::clone(&self.config)).unwrap()
    }

    /// The same certificate as the API shows it.
    pub(crate) fn acceptor(&self) -> super::Acceptor {
        super::Acceptor::from_pem(self.certificate_pem.as_bytes(), self.key_pem.as_bytes()).unwrap()
    }

    /// A client that trusts it alone.
    pub(crate) fn client(&self) -> super::Tls {
        super::Tls::with_roots([self.der.clone()]).unwrap()
    }
}

/// DER as a section of PEM.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode_to_string(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
