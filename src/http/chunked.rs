//! The chunked transfer coding (RFC 9112 section 7.1), decoded as it comes.
//!
//! Sizes are bare hexadecimal digits, lines end with CR LF, and extensions and trailers are checked, bounded and thrown
//! away: a trailer never becomes a header.

use super::{BodyMax, CHUNK_EXTRA_BYTES_MAX, HEADERS_MAX, Problem, is_token_byte, is_value_byte};

/// Longest size: 32 bits' worth of digits, far beyond what a body may have.
const SIZE_DIGITS_MAX: usize = 8;

/// Decodes one body.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    max: BodyMax,
    expect: Expect,
    /// The line being gathered, without its end.
    line: Vec<u8>,
    /// Extension and trailer bytes so far.
    extra: usize,
    trailers: usize,
}

/// What comes next.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Expect {
    /// The line with a chunk's size.
    #[default]
    Size,
    /// So many bytes of data.
    Data(usize),
    /// The line end after data, or its second half.
    DataEnd,
    DataEndLf,
    /// A trailer, or the empty line that ends the body.
    Trailer,
}

impl Decoder {
    /// One whose body may be that long.
    pub(super) fn up_to(max: BodyMax) -> Self {
        Self { max, ..Self::default() }
    }

    /// Takes bytes and appends data to `body`. Returns how many it took and whether the body is whole; when it is
    /// not, all were taken.
    pub(super) fn advance(&mut self, input: &[u8], body: &mut Vec<u8>) -> Result<(usize, bool), Problem> {
        let mut taken = 0;
        while let Some(&byte) = input.get(taken) {
            match self.expect {
                Expect::Data(left) => {
                    let n = left.min(input.len() - taken);
                    body.extend_from_slice(&input[taken..taken + n]);
                    taken += n;
                    self.expect = if n == left { Expect::DataEnd } else { Expect::Data(left - n) };
                    continue;
                }
                Expect::DataEnd if byte == b'\r' => self.expect = Expect::DataEndLf,
                Expect::DataEndLf if byte == b'\n' => self.expect = Expect::Size,
                Expect::DataEnd | Expect::DataEndLf => {
                    return Err(Problem::framing("A chunk is not followed by CR LF."));
                }
                Expect::Size | Expect::Trailer => {
                    if self.push(byte)? && self.line_done(body.len())? {
                        return Ok((taken + 1, true));
                    }
                }
            }
            taken += 1;
        }
        Ok((taken, false))
    }

    /// Gathers a line; true when `byte` ended it.
    fn push(&mut self, byte: u8) -> Result<bool, Problem> {
        let after_cr = self.line.last() == Some(&b'\r');
        match byte {
            b'\n' if after_cr => {
                self.line.pop();
                Ok(true)
            }
            b'\n' => Err(Problem::framing("A line of the chunked body ends with LF alone.")),
            _ if after_cr => Err(Problem::framing("A line of the chunked body contains a CR without LF.")),
            _ => {
                let digits = self.expect == Expect::Size && self.line.len() < SIZE_DIGITS_MAX;
                self.extra += usize::from(!digits);
                if self.extra > CHUNK_EXTRA_BYTES_MAX {
                    let text = "Chunk extensions and trailers are longer than 16 KiB.";
                    return Err(Problem { status: 431, code: "trailers_too_large", text });
                }
                self.line.push(byte);
                Ok(false)
            }
        }
    }

    /// Judges a whole line; true when it ends the body.
    fn line_done(&mut self, have: usize) -> Result<bool, Problem> {
        let line = std::mem::take(&mut self.line);
        if self.expect == Expect::Size {
            let size = chunk_size(&line)?;
            if size > self.max.bytes - have {
                return Err(self.max.problem());
            }
            self.expect = if size == 0 { Expect::Trailer } else { Expect::Data(size) };
            return Ok(false);
        }
        if line.is_empty() {
            return Ok(true);
        }
        self.trailers += 1;
        let colon = line.iter().position(|&byte| byte == b':').unwrap_or(0);
        let (name, value) = line.split_at(colon);
        let sound = !name.is_empty()
            && name.iter().copied().all(is_token_byte)
            && value[1..].iter().copied().all(is_value_byte)
            && self.trailers <= HEADERS_MAX;
        if sound { Ok(false) } else { Err(Problem::framing("A trailer is not NAME: VALUE, or there are too many.")) }
    }
}

fn chunk_size(line: &[u8]) -> Result<usize, Problem> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (size, extension) = line.split_at(digits);
    if size.is_empty() || digits > SIZE_DIGITS_MAX {
        return Err(Problem::framing("A chunk size is not one to eight hexadecimal digits."));
    }
    let sound = match extension {
        [] => true,
        [b';', rest @ ..] => rest.iter().copied().all(is_value_byte),
        _ => false,
    };
    if !sound {
        return Err(Problem::framing("A chunk size is followed by something that is not an extension."));
    }
    let text = std::str::from_utf8(size).expect("hexadecimal digits are ASCII");
    usize::from_str_radix(text, 16).map_err(|_| Problem::framing("A chunk size is not a number."))
}
