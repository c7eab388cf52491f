//! An https client that keeps its connection, and the authority whose certificates it trusts.
//!
//! TLS is rustls', as in the server; whether others understand the server is for `tests/interop`.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;

use super::http_client::Response;

/// How long a connection, a write or a read may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Issues certificates for this host.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: Vec<u8>,
    pem: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![]).expect("no names");
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate");
        let (der, pem) = (certificate.der().to_vec(), certificate.pem());
        Self { issuer: Issuer::new(params, key), der, pem }
    }

    /// Writes a new certificate that is valid until the end of a year, and its key, over what the files held.
    pub(crate) fn issue(&self, until: i32, files: &Files) {
        let key = KeyPair::generate().expect("a key");
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).expect("good names");
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(until, 12, 31);
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        files.write("cert.pem", &(certificate.pem() + &self.pem));
        files.write("key.pem", &key.serialize_pem());
        files.write("ca.pem", &self.pem);
    }
}

/// A folder of a test's files, gone with it.
pub(crate) struct Files(PathBuf);

impl Files {
    pub(crate) fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder for temporary files");
        Self(path)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.join(name), text).expect("a folder of ours");
    }

    /// Where a file is.
    pub(crate) fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// One connection.
pub(crate) struct HttpsClient {
    stream: StreamOwned<ClientConnection, TcpStream>,
    token: Option<String>,
}

impl HttpsClient {
    /// Connects and shakes hands, trusting this authority alone.
    pub(crate) fn connect(server: SocketAddr, authority: &Authority) -> io::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(authority.der.clone().into()).expect("an authority");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions of the provider")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let session =
            ClientConnection::new(Arc::new(config), "localhost".try_into().expect("a name")).expect("a client");
        let socket = TcpStream::connect_timeout(&server, PATIENCE)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let mut stream = StreamOwned::new(session, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Self { stream, token: None })
    }

    /// The same, with `Authorization: Bearer <token>` on each request.
    pub(crate) fn with_token(self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self }
    }

    /// One request on the connection, its body sent as JSON.
    ///
    /// # Panics
    /// When the exchange fails; any status is a success.
    pub(crate) fn request(&mut self, method: &str, path: &str, body: Option<&Value>) -> Response {
        let token = self.token.as_ref().map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        let body = body.map(Value::to_string).unwrap_or_default();
        let length = body.len();
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{token}Content-Length: {length}\r\n\r\n{body}");
        self.stream.write_all(request.as_bytes()).expect("the server reads");
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).expect("the server answers");
            bytes.extend(byte);
        }
        let head = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or("0", str::trim);
        let length = length.parse().expect("a length");
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).expect("the server answers");
        bytes.extend(body);
        Response::parse(&bytes, false).expect("HTTP")
    }

    /// Asks a last time; whether the server then ends TLS before it ends the stream.
    pub(crate) fn ends_cleanly(mut self) -> bool {
        self.stream
            .write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .expect("the server reads");
        self.stream.read_to_end(&mut Vec::new()).is_ok_and(|length| length > 0)
    }
}
