//! DTLS as the relay and the tests' clients use it: one certificate and one DTLS configuration for many connections, and
//! handshake flights that are sent again after 150 ms where the default waits a second.
//!
//! This file must not know what the connection is for.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use str0m::crypto::dtls::{DtlsCert, DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, ProtocolVersion};
use str0m::crypto::{CryptoError, CryptoProvider, from_feature_flags};
use str0m::format::{Codec, FormatParams};
use str0m::media::Frequency;
use str0m::{IceCreds, RtcConfig};

/// The payload type that WhatsApp gives Opus.
pub const PT_OPUS: u8 = 111;

/// The payload type that WhatsApp gives telephone-event.
pub const PT_TELEPHONE_EVENT: u8 = 126;

/// First wait before a handshake flight is sent again; it doubles each time.
const FLIGHT_RTO: Duration = Duration::from_millis(150);

/// How often a flight is sent again.
const FLIGHT_RETRIES: usize = 8;

/// How long a server waits for a handshake to end, which begins when the answer is applied: longer than any
/// call takes to be answered.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(600);

/// str0m's primitives with DTLS replaced, and one certificate. Cheap to clone, costly (about a millisecond) to make.
#[derive(Clone, Debug)]
pub struct Crypto {
    pub(super) provider: Arc<CryptoProvider>,
    certificate: Arc<DtlsCert>,
}

impl Default for Crypto {
    fn default() -> Self {
        Self::new()
    }
}

impl Crypto {
    /// A fresh ECDSA P-256 certificate over the shared DTLS configuration.
    pub fn new() -> Self {
        static DTLS: LazyLock<SharedDtls> = LazyLock::new(SharedDtls::new);
        let defaults = from_feature_flags();
        let certificate = defaults.dtls_provider.generate_certificate().expect("this provider makes certificates");
        let provider = CryptoProvider { dtls_provider: &*DTLS, ..defaults };
        Self { provider: Arc::new(provider), certificate: Arc::new(certificate) }
    }

    /// `sha-256 AB:CD:...`, as an `a=fingerprint` line carries it.
    pub fn fingerprint(&self) -> String {
        let digest = self.provider.sha256_provider.sha256(&self.certificate.certificate);
        let bytes: Vec<String> = digest.iter().map(|byte| format!("{byte:02X}")).collect();
        format!("sha-256 {}", bytes.join(":"))
    }

    /// An audio call in RTP mode with WhatsApp's two payload types, and nothing that its offer does not name.
    pub fn rtc_config(&self, credentials: IceCreds) -> RtcConfig {
        let mut config = RtcConfig::new()
            .set_crypto_provider(self.provider.clone())
            .set_dtls_cert((*self.certificate).clone())
            .set_local_ice_credentials(credentials)
            .clear_codecs()
            .clear_extension_map()
            .set_rtp_mode(true);
        let codecs = config.codec_config();
        let opus = FormatParams { min_p_time: Some(20), use_inband_fec: Some(true), ..FormatParams::default() };
        codecs.add_config(PT_OPUS.into(), None, Codec::Opus, Frequency::FORTY_EIGHT_KHZ, Some(2), opus);
        let tele = FormatParams::default();
        codecs.add_config(PT_TELEPHONE_EVENT.into(), None, Codec::Tele, Frequency::EIGHT_KHZ, None, tele);
        config
    }
}

/// Makes DTLS 1.2 endpoints from one configuration. To build that configuration costs more than the rest of a call.
#[derive(Debug)]
struct SharedDtls {
    config: Arc<dimpl::Config>,
}

impl SharedDtls {
    fn new() -> Self {
        let config = dimpl::Config::builder()
            .use_server_cookie(false) // ICE has proved the address before DTLS begins
            .flight_start_rto(FLIGHT_RTO)
            .flight_retries(FLIGHT_RETRIES)
            .handshake_timeout(HANDSHAKE_TIMEOUT)
            .build()
            .expect("a constant configuration is valid");
        Self { config: Arc::new(config) }
    }
}

impl DtlsProvider for SharedDtls {
    fn generate_certificate(&self) -> Option<DtlsCert> {
        from_feature_flags().dtls_provider.generate_certificate()
    }

    fn new_dtls(
        &self,
        certificate: &DtlsCert,
        now: Instant,
        _version: str0m::config::DtlsVersion,
        _mtu: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, CryptoError> {
        Ok(Box::new(Endpoint(dimpl::Dtls::new_12(self.config.clone(), certificate.clone(), now))))
    }
}

/// One DTLS endpoint: every call goes straight through.
#[derive(Debug)]
struct Endpoint(dimpl::Dtls);

impl DtlsInstance for Endpoint {
    fn set_active(&mut self, active: bool) {
        self.0.set_active(active);
    }

    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
        self.0.handle_packet(packet)
    }

    fn poll_output<'a>(&mut self, buf: &'a mut [u8]) -> DtlsOutput<'a> {
        self.0.poll_output(buf)
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
