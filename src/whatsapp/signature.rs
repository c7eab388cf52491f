//! `X-Hub-Signature-256`: HMAC-SHA-256 of the body's bytes with the app's secret, in hexadecimal.
//!
//! It is made of the bytes as they came, before anything reads them: Meta signs its own escaped form of the JSON, which no
//! parser and writer would give back. It must not know of HTTP.

use aws_lc_rs::hmac;

use crate::config::Secret;

const PREFIX: &str = "sha256=";
const DIGEST_BYTES: usize = 32;

/// Why a signature is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureError {
    /// There is none.
    Missing,
    /// It is no `sha256=` and 64 hexadecimal digits.
    Malformed,
    /// None of the secrets makes it.
    Wrong,
}

/// Checks it, in time that depends on the body's length and the number of secrets alone. Digits of either case are taken:
/// Meta writes lower case, and a proxy that changes it has changed nothing of what is signed.
///
/// An empty secret makes no signature: everybody knows it.
pub fn verify(header: Option<&str>, body: &[u8], secrets: &[Secret]) -> Result<(), SignatureError> {
    let header = header.ok_or(SignatureError::Missing)?;
    let digest = header.strip_prefix(PREFIX).and_then(digest).ok_or(SignatureError::Malformed)?;
    // All are tried, whichever fits.
    let matched = secrets.iter().fold(false, |matched, secret| {
        let secret = secret.expose().as_bytes();
        matched | (matches(secret, body, &digest) & !secret.is_empty())
    });
    if matched { Ok(()) } else { Err(SignatureError::Wrong) }
}

/// Compares in constant time.
fn matches(secret: &[u8], body: &[u8], digest: &[u8; DIGEST_BYTES]) -> bool {
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, secret), body, digest).is_ok()
}

/// 64 hexadecimal digits as bytes.
fn digest(text: &str) -> Option<[u8; DIGEST_BYTES]> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != DIGEST_BYTES || !rest.is_empty() {
        return None;
    }
    let nibble = |digit: u8| char::from(digit).to_digit(16);
    let mut digest = [0; DIGEST_BYTES];
    for (byte, [high, low]) in digest.iter_mut().zip(pairs) {
        *byte = (nibble(*high)? << 4 | nibble(*low)?) as u8;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of GitHub's page on the same scheme: secret, payload, digest.
    const PUBLISHED: (&str, &[u8], &str) = (
        "It's a Secret to Everybody",
        b"Hello, World!",
        "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
    );

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
    }

    fn header(digest: &str) -> String {
        format!("sha256={digest}")
    }

    fn check(secret: &str, body: &[u8], digest: &str) -> Result<(), SignatureError> {
        verify(Some(&header(digest)), body, &[Secret::new(secret)])
    }

    #[test]
    fn the_vectors_of_rfc_4231_hold() {
        // Section 4.2 to 4.8; 4.6 is of a digest cut short, which no header carries.
        let counted: Vec<u8> = (1..=25).collect();
        let long_key = b"This is a test using a larger than block-size key and a larger than block-size data. \
                         The key needs to be hashed before being used by the HMAC algorithm.";
        let vectors: [(&[u8], &[u8], &str); 6] = [
            (&[0x0b; 20], b"Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
            (
                b"Jefe",
                b"what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (&[0xaa; 20], &[0xdd; 50], "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
            (&counted, &[0xcd; 50], "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"),
            (
                &[0xaa; 131],
                b"Test Using Larger Than Block-Size Key - Hash Key First",
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
            (&[0xaa; 131], long_key, "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2"),
        ];
        for (key, data, hex) in vectors {
            assert!(matches(key, data, &digest(hex).unwrap()), "{hex}");
            assert!(!matches(&key[1..], data, &digest(hex).unwrap()), "{hex}");
        }
        for (key, data, hex) in [vectors[0], vectors[1]] {
            assert_eq!(check(std::str::from_utf8(key).unwrap(), data, hex), Ok(()));
        }
    }

    #[test]
    fn the_published_example_holds_in_either_case() {
        let (secret, body, hex) = PUBLISHED;
        assert_eq!(check(secret, body, hex), Ok(()));
        assert_eq!(check(secret, body, &hex.to_uppercase()), Ok(()));
        assert_eq!(check("It's a secret to everybody", body, hex), Err(SignatureError::Wrong));
    }

    #[test]
    fn what_is_signed_is_what_was_sent_escapes_included() {
        let secret = Secret::new("app secret");
        let sent = br#"{"text":"\u00e4\u00f6\u00e5 <\/a> \ud83d\ude00"}"#;
        let read: serde_json::Value = serde_json::from_slice(sent).unwrap();
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"app secret"), sent);
        let hex = hex(tag.as_ref());
        let secrets = [secret];
        assert_eq!(verify(Some(&header(&hex)), sent, &secrets), Ok(()));
        let written = serde_json::to_vec(&read).unwrap();
        assert_ne!(written, sent);
        assert_eq!(verify(Some(&header(&hex)), &written, &secrets), Err(SignatureError::Wrong));
    }

    #[test]
    fn one_flipped_bit_of_digest_or_body_is_refused() {
        let (secret, body, published) = PUBLISHED;
        let good = digest(published).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(check(secret, body, &hex(&bad)), Err(SignatureError::Wrong), "bit {bit} of the digest");
        }
        for bit in 0..body.len() * 8 {
            let mut bad = body.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(check(secret, &bad, published), Err(SignatureError::Wrong), "bit {bit} of the body");
        }
        for body in [&body[..12], &body[1..], b"Hello, World!\n", b""] {
            assert_eq!(check(secret, body, published), Err(SignatureError::Wrong));
        }
    }

    #[test]
    fn any_of_several_secrets_may_have_signed() {
        let (secret, body, hex) = PUBLISHED;
        for secrets in [vec![secret, "other", "third"], vec!["other", secret, "third"], vec!["other", "third", secret]]
        {
            let secrets: Vec<_> = secrets.into_iter().map(Secret::new).collect();
            assert_eq!(verify(Some(&header(hex)), body, &secrets), Ok(()));
        }
        let others = [Secret::new("other"), Secret::new("third")];
        assert_eq!(verify(Some(&header(hex)), body, &others), Err(SignatureError::Wrong));
        assert_eq!(verify(Some(&header(hex)), body, &[]), Err(SignatureError::Wrong));
    }

    #[test]
    fn an_empty_secret_signs_nothing() {
        let hex = "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad"; // of nothing, with no key
        assert!(matches(b"", b"", &digest(hex).unwrap()));
        assert_eq!(check("", b"", hex), Err(SignatureError::Wrong));
    }

    #[test]
    fn what_is_no_signature_is_refused_as_such() {
        let (secret, body, hex) = PUBLISHED;
        let secrets = [Secret::new(secret)];
        assert_eq!(verify(None, body, &secrets), Err(SignatureError::Missing));
        for bad in [
            String::new(),
            "sha256".into(),
            "sha256=".into(),
            hex.to_owned(),
            format!("sha1={hex}"),
            format!("SHA256={hex}"),
            format!("sha256:{hex}"),
            format!("sha256= {hex}"),
            format!(" sha256={hex}"),
            format!("sha256={hex} "),
            format!("sha256={}", &hex[..62]),
            format!("sha256={}", &hex[..63]),
            format!("sha256={hex}0"),
            format!("sha256={hex}00"),
            format!("sha256={hex}{hex}"),
            format!("sha256={hex},sha256={hex}"),
            format!("sha256=0x{}", &hex[2..]),
            format!("sha256=+{}", &hex[1..]),
            format!("sha256={}g", &hex[..63]),
            format!("sha256={}é", &hex[..62]),
            format!("sha256={}\u{0665}", &hex[..62]),
            format!("sha256={}", "\u{ff15}".repeat(64)),
            format!("sha256={}", "\0".repeat(64)),
        ] {
            assert_eq!(verify(Some(&bad), body, &secrets), Err(SignatureError::Malformed), "{bad:?}");
        }
    }
}
