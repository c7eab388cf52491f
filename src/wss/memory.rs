//! A byte stream in memory: what tungstenite and rustls read from and write to instead of a socket.

use std::io::{self, Read, Write};

/// Two byte queues with the faces of a non-blocking socket: reading an empty one is `WouldBlock`.
#[derive(Debug, Default)]
pub struct MemoryStream {
    incoming: Vec<u8>,
    taken: usize,
    outgoing: Vec<u8>,
    ended: bool,
}

impl MemoryStream {
    /// Queues bytes to be read. The caller bounds what it feeds before it lets the reader run.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.taken == self.incoming.len() {
            self.incoming.clear();
            self.taken = 0;
        }
        self.incoming.extend_from_slice(bytes);
    }

    /// The other end sends no more: once all is read, reading returns zero bytes.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Bytes fed and not yet read.
    pub fn unread(&self) -> usize {
        self.incoming.len() - self.taken
    }

    /// What was written since the last call.
    pub fn outgoing(&mut self) -> &mut Vec<u8> {
        &mut self.outgoing
    }
}

impl Read for MemoryStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let rest = &self.incoming[self.taken..];
        if rest.is_empty() && !self.ended {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        self.taken += n;
        Ok(n)
    }
}

impl Write for MemoryStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.outgoing.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_what_was_fed_then_would_block_then_ends() {
        let mut stream = MemoryStream::default();
        stream.feed(b"abc");
        let mut two = [0; 2];
        assert_eq!(stream.read(&mut two).unwrap(), 2);
        assert_eq!((two, stream.unread()), (*b"ab", 1));
        assert_eq!(stream.read(&mut two).unwrap(), 1);
        assert_eq!(stream.read(&mut two).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        stream.end();
        assert_eq!(stream.read(&mut two).unwrap(), 0);
    }
}
