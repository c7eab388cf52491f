//! TLS over bytes, by rustls, without a socket or thread: as a client towards the model and towards bridges under load, as
//! a server for the session API.
//!
//! One provider of cryptography and one policy for the whole process: TLS 1.2 and 1.3, certificates always verified. rustls
//! reads the wall clock for their dates and for the age of tickets: that is the one clock here.
//!
//! Only the files below name rustls. They must not know what is carried.

mod client;
mod pair;
mod server;
#[cfg(test)]
pub(crate) mod testing;

pub use client::{ClientSession, Tls, certificates};
pub(crate) use client::{explain, machine_roots, provider};
pub use pair::{Certificate, PairError, PairPart};
pub use server::{Acceptor, ServerSession};

use rustls::{ConnectionCommon, Error, SideData};

/// What is spoken inside: a server that was offered h2 may choose it, and both ends of ours speak HTTP/1.1.
const ALPN: &[u8] = b"http/1.1";

/// Decrypts what came and appends it to `plain`. `Ok(true)`: the other end closed TLS, nothing comes any more.
fn open<D: SideData>(
    connection: &mut ConnectionCommon<D>,
    mut sealed: &[u8],
    plain: &mut Vec<u8>,
) -> Result<bool, Error> {
    let general = |error: std::io::Error| Error::General(error.to_string());
    while !sealed.is_empty() {
        let taken = connection.read_tls(&mut sealed).map_err(general)?;
        let state = connection.process_new_packets()?;
        let mut left = state.plaintext_bytes_to_read();
        while left > 0 {
            let mut reader = connection.reader();
            let chunk = std::io::BufRead::fill_buf(&mut reader).map_err(general)?;
            plain.extend_from_slice(chunk);
            let n = chunk.len();
            std::io::BufRead::consume(&mut reader, n);
            left -= n;
        }
        if state.peer_has_closed() {
            return Ok(true);
        }
        if taken == 0 {
            break;
        }
    }
    Ok(false)
}

/// Appends to `sealed` what the handshake has to say, and `plain` encrypted. What is given before the handshake is done
/// is kept until it is.
fn seal<D: SideData>(connection: &mut ConnectionCommon<D>, plain: &[u8], sealed: &mut Vec<u8>) {
    if !plain.is_empty() {
        // Fails only on a connection that has failed, and that writes its alert alone.
        _ = std::io::Write::write_all(&mut connection.writer(), plain);
    }
    while connection.wants_write() {
        connection.write_tls(sealed).expect("a Vec takes everything");
    }
}
