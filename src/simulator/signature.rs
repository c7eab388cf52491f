//! Meta's signature of a webhook: HMAC-SHA256 of the body with the app's secret, in hexadecimal digits.
//!
//! Its own making, on purpose: the code under test must not sign what that code verifies.

use aws_lc_rs::hmac;

/// The value of `X-Hub-Signature-256` for these bytes.
pub(super) fn sign(secret: &str, body: &[u8]) -> String {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), body);
    let digits: Vec<String> = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256={}", digits.concat())
}

/// The same with one bit of the digest flipped.
pub(super) fn flip(signature: &str) -> String {
    let (head, last) = signature.split_at(signature.len() - 1);
    let digit = u8::from_str_radix(last, 16).expect("it ends with a hexadecimal digit") ^ 1;
    format!("{head}{digit:x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_that_of_the_known_vector_and_a_flipped_one_differs_in_a_digit() {
        // RFC 4231 test case 2.
        let signature = sign("Jefe", b"what do ya want for nothing?");
        assert_eq!(signature, "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        assert_eq!(flip(&signature), "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3842");
    }
}
