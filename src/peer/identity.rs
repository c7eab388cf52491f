//! Who we are to every peer: one ECDSA certificate and the DTLS settings, made once per process.
//!
//! Two reasons for a DTLS provider of our own over the same engine. The default waits 1 s before it repeats a lost
//! ClientHello, which callers hear as a late greeting; ours waits 150 ms. And the default validates its whole crypto
//! configuration for each connection, 0.9 ms that every other call of the core would wait; ours shares one
//! configuration, and an `Rtc` costs microseconds.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use str0m::config::{CryptoProvider, DtlsCert, DtlsVersion, Fingerprint};
use str0m::crypto::dtls::{DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, ProtocolVersion};
use str0m::crypto::{CryptoError, from_feature_flags};

/// First wait before a lost DTLS flight is repeated; it doubles from there.
const DTLS_RTO: Duration = Duration::from_millis(150);
/// Repeats of a flight: together they outlast the 30 s that a call may take to connect.
const DTLS_RETRIES: usize = 8;
/// A handshake that takes longer is over; the call's own limit ends it first.
const DTLS_HANDSHAKE_MAX: Duration = Duration::from_secs(31);
/// Largest DTLS record we send, in bytes: below any path's limit, and what the WebRTC stack uses.
const DTLS_MTU: usize = 1150;

/// The certificate, its fingerprint and the crypto provider. Cheap to clone.
#[derive(Clone)]
pub struct Identity {
    pub(super) certificate: DtlsCert,
    pub(super) crypto: Arc<CryptoProvider>,
    fingerprint: [u8; 32],
}

impl Identity {
    /// Makes a fresh self-signed ECDSA P-256 certificate.
    ///
    /// ECDSA because an RSA one would fragment the DTLS flight, which Meta advises against.
    pub fn generate() -> Result<Self, String> {
        let mut crypto = from_feature_flags();
        crypto.dtls_provider = &FastDtls;
        let certificate =
            from_feature_flags().dtls_provider.generate_certificate().ok_or("no certificate could be made")?;
        let fingerprint = crypto.sha256_provider.sha256(&certificate.certificate);
        shared_config()?;
        Ok(Self { certificate, crypto: Arc::new(crypto), fingerprint })
    }

    /// SHA-256 of the certificate, for the answer.
    pub fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity")
    }
}

/// A peer's announced fingerprint in the stack's form.
pub(super) fn sha256_fingerprint(bytes: &[u8; 32]) -> Fingerprint {
    Fingerprint { hash_func: "sha-256".to_owned(), bytes: bytes.to_vec() }
}

fn shared_config() -> Result<Arc<dimpl::Config>, String> {
    static CONFIG: OnceLock<Result<Arc<dimpl::Config>, String>> = OnceLock::new();
    CONFIG
        .get_or_init(|| {
            dimpl::Config::builder()
                .with_crypto_provider(dimpl::crypto::aws_lc_rs::default_provider())
                // ICE has proved the return path before DTLS starts: a cookie would only add a round trip.
                .use_server_cookie(false)
                .mtu(DTLS_MTU)
                .flight_start_rto(DTLS_RTO)
                .flight_retries(DTLS_RETRIES)
                .handshake_timeout(DTLS_HANDSHAKE_MAX)
                .build()
                .map(Arc::new)
                .map_err(|error| format!("DTLS cannot be set up: {error}"))
        })
        .clone()
}

#[derive(Debug)]
struct FastDtls;

impl DtlsProvider for FastDtls {
    fn generate_certificate(&self) -> Option<DtlsCert> {
        from_feature_flags().dtls_provider.generate_certificate()
    }

    fn new_dtls(
        &self,
        certificate: &DtlsCert,
        now: Instant,
        _version: DtlsVersion,
        _mtu: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, CryptoError> {
        let config = shared_config().map_err(CryptoError::Other)?;
        // DTLS 1.2: what Meta's relays and all browsers speak.
        Ok(Box::new(Dtls(dimpl::Dtls::new_12(config, certificate.clone(), now))))
    }
}

struct Dtls(dimpl::Dtls);

impl fmt::Debug for Dtls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dtls")
    }
}

impl DtlsInstance for Dtls {
    fn set_active(&mut self, active: bool) {
        self.0.set_active(active);
    }

    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
        self.0.handle_packet(packet)
    }

    fn poll_output<'a>(&mut self, buffer: &'a mut [u8]) -> DtlsOutput<'a> {
        self.0.poll_output(buffer)
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsImplError> {
        self.0.handle_timeout(now)
    }

    fn send_application_data(&mut self, data: &[u8]) -> Result<usize, DtlsImplError> {
        self.0.send_application_data(data)
    }

    fn is_active(&self) -> bool {
        self.0.is_active()
    }

    fn protocol_version(&self) -> Option<ProtocolVersion> {
        self.0.protocol_version()
    }

    fn is_closing(&self) -> bool {
        self.0.is_closing()
    }

    fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    fn close(&mut self) -> Result<(), DtlsImplError> {
        self.0.close()
    }
}
