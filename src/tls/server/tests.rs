use std::sync::Arc;

use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};

use super::*;
use crate::tls::testing::Identity;

/// Lets both ends talk until neither has more to say; what the server read.
fn talk(client: &mut ClientConnection, server: &mut ServerSession) -> Result<Vec<u8>, String> {
    let mut plain = Vec::new();
    loop {
        let mut sealed = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut sealed).unwrap();
        }
        let outcome = server.open(&sealed, &mut plain);
        let mut back = Vec::new();
        server.seal(&[], &mut back);
        outcome?;
        if back.is_empty() && sealed.is_empty() {
            return Ok(plain);
        }
        let mut back = back.as_slice();
        while !back.is_empty() {
            client.read_tls(&mut back).unwrap();
            client.process_new_packets().map_err(|error| error.to_string())?;
        }
    }
}

fn config(identity: &Identity, version: &'static SupportedProtocolVersion, alpn: &[&[u8]]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(identity.der.clone().into()).unwrap();
    let mut config = ClientConfig::builder_with_provider(crate::tls::provider())
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

fn client(config: &Arc<ClientConfig>) -> ClientConnection {
    ClientConnection::new(Arc::clone(config), "localhost".try_into().unwrap()).unwrap()
}

#[test]
fn both_versions_are_spoken_with_http_inside_and_resumed() {
    let identity = Identity::until(2100);
    let acceptor = identity.acceptor();
    for version in [&TLS12, &TLS13] {
        let config = config(&identity, version, &[b"h2", b"http/1.1"]);
        for resumed in [false, true] {
            let (mut client, mut server) = (client(&config), ServerSession::new(&acceptor));
            assert_eq!(talk(&mut client, &mut server), Ok(vec![]));
            assert!(!server.is_handshaking());
            assert_eq!((server.is_resumed(), client.alpn_protocol()), (resumed, Some(&b"http/1.1"[..])), "{version:?}");
            std::io::Write::write_all(&mut client.writer(), b"hello").unwrap();
            assert_eq!(talk(&mut client, &mut server), Ok(b"hello".to_vec()));
        }
    }
}

#[test]
fn a_session_is_not_resumed_past_a_new_certificate() {
    let identity = Identity::until(2100);
    let config = config(&identity, &TLS13, &[]);
    for _ in 0..2 {
        let (mut client, mut server) = (client(&config), ServerSession::new(&identity.acceptor()));
        talk(&mut client, &mut server).unwrap();
        assert!(!server.is_handshaking() && !server.is_resumed());
    }
}

#[test]
fn what_a_client_lacks_is_said() {
    let (identity, other) = (Identity::until(2100), Identity::until(2101));
    let acceptor = identity.acceptor();
    let h2 = config(&identity, &TLS13, &[b"h2"]);
    let error = talk(&mut client(&h2), &mut ServerSession::new(&acceptor)).unwrap_err();
    assert!(error.contains("http/1.1"), "{error}");
    let mut server = ServerSession::new(&acceptor);
    let mut stranger = client(&config(&other, &TLS13, &[]));
    assert!(talk(&mut stranger, &mut server).is_err());
    let mut alert = Vec::new();
    stranger.write_tls(&mut alert).unwrap();
    let error = server.open(&alert, &mut Vec::new()).unwrap_err();
    assert!(error.contains("the client refused: "), "{error}");
}
