//! A server's certificate and key out of PEM: what is wrong with them in words that say what to do, and what a reader of
//! the log should know before clients tell.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use x509_cert::der::Decode;
use x509_cert::der::asn1::GeneralizedTime;

/// A certificate is told to end this long before it does: time for one that renews itself a month ahead to have failed.
const EXPIRY_WARNING: Duration = Duration::from_secs(14 * 86_400);

/// Which of the two files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PairPart {
    /// The certificate and its chain.
    Certificate,
    /// The key.
    Key,
}

/// Why a pair cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairError {
    /// Which file is to blame.
    pub part: PairPart,
    /// What is wrong with it and what would be right: a phrase that goes behind its name. Shows nothing of what is in it.
    pub problem: String,
}

/// What is known of a server's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Valid from, seconds since 1970.
    pub not_before_sec: u64,
    /// Valid until, seconds since 1970.
    pub not_after_sec: u64,
    /// Whether no other vouches for it.
    is_self_signed: bool,
    /// Certificates in the file.
    count: usize,
}

impl Certificate {
    /// What clients will complain about, a sentence each. `now_sec` is the time since 1970.
    pub fn warnings(&self, now_sec: u64) -> Vec<String> {
        let mut found = Vec::new();
        let (from, until) = (Date(self.not_before_sec), Date(self.not_after_sec));
        if now_sec >= self.not_after_sec {
            found
                .push(format!("the certificate has expired on {until}: clients refuse it; renew it, then send SIGHUP"));
        } else if now_sec < self.not_before_sec {
            found.push(format!("the certificate is not valid before {from} (or this machine's clock is wrong)"));
        } else if self.not_after_sec - now_sec < EXPIRY_WARNING.as_secs() {
            found.push(format!("the certificate expires on {until}: renew it, then send SIGHUP"));
        }
        if self.count == 1 && !self.is_self_signed {
            found.push(
                "the file holds one certificate and none of its issuer: clients that trust only a root above it refuse \
                 it. Give the whole chain, the server's own first (fullchain.pem of most authorities)"
                    .into(),
            );
        }
        found
    }
}

/// Seconds since 1970 as a date in UTC.
struct Date(u64);

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match GeneralizedTime::from_unix_duration(Duration::from_secs(self.0)) {
            Ok(time) => time.to_date_time().fmt(f),
            Err(_) => write!(f, "{} s after 1970", self.0),
        }
    }
}

fn fail<T>(part: PairPart, problem: impl Into<String>) -> Result<T, PairError> {
    Err(PairError { part, problem: problem.into() })
}

/// Reads a pair and checks that its halves belong together. `None`: the certificate has dates that X.509 does not allow,
/// which rustls may take nevertheless.
pub(super) fn read(chain: &[u8], key: &[u8]) -> Result<(CertifiedKey, Option<Certificate>), PairError> {
    let chain = read_chain(chain)?;
    let key = read_key(key)?;
    let key = super::provider().key_provider.load_private_key(key).or_else(|_| {
        let problem =
            "holds a key that cannot be used: RSA of 2048 to 8192 bits, ECDSA P-256, P-384 or P-521 and Ed25519 can";
        fail(PairPart::Key, problem)
    })?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
        Err(Error::InconsistentKeys(_)) => return Err(mismatch(&certified)),
        Err(_) => return fail(PairPart::Certificate, "holds something else than an X.509 certificate of a server"),
    }
    let facts = facts(&certified.cert);
    Ok((certified, facts))
}

/// The key is not that of the first certificate: of another one, perhaps?
fn mismatch(certified: &CertifiedKey) -> PairError {
    let fits = |certificate: &CertificateDer<'static>| {
        CertifiedKey::new(vec![certificate.clone()], Arc::clone(&certified.key)).keys_match().is_ok()
    };
    match certified.cert.iter().position(fits) {
        Some(place) => PairError {
            part: PairPart::Certificate,
            problem: format!("has the server's own certificate in place {}: it must be the first", place + 1),
        },
        None => PairError {
            part: PairPart::Key,
            problem: "holds a key that does not match the certificate: copy both from the same renewal".into(),
        },
    }
}

fn read_chain(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, PairError> {
    let part = PairPart::Certificate;
    let chain = CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>();
    match chain.as_deref() {
        Ok([]) if names(text, "PRIVATE KEY-----") => {
            fail(part, "holds a private key and no certificate: are the two files swapped?")
        }
        Ok([]) if text.first() == Some(&0x30) => {
            fail(part, "is DER and must be PEM: openssl x509 -inform der -in FILE -out cert.pem")
        }
        Ok([]) => fail(part, "holds no certificate (-----BEGIN CERTIFICATE-----)"),
        Ok(_) => Ok(chain.expect("matched above")),
        Err(error) => fail(part, damage(error)),
    }
}

fn read_key(text: &[u8]) -> Result<PrivateKeyDer<'static>, PairError> {
    let part = PairPart::Key;
    if names(text, "ENCRYPTED") {
        let problem =
            "holds a key under a passphrase, which nobody is there to type: openssl pkey -in FILE -out key.pem";
        return fail(part, problem);
    }
    match PrivateKeyDer::from_pem_slice(text) {
        Ok(key) => Ok(key),
        Err(pem::Error::NoItemsFound) if names(text, "BEGIN CERTIFICATE") => {
            fail(part, "holds a certificate and no private key: are the two files swapped?")
        }
        Err(pem::Error::NoItemsFound) if text.first() == Some(&0x30) => {
            fail(part, "is DER and must be PEM: openssl pkey -inform der -in FILE -out key.pem")
        }
        Err(pem::Error::NoItemsFound) => fail(part, "holds no private key (PKCS#8, PKCS#1 or SEC1, in PEM)"),
        Err(error) => fail(part, damage(&error)),
    }
}

fn names(text: &[u8], word: &str) -> bool {
    text.windows(word.len()).any(|window| window == word.as_bytes())
}

/// Nothing of the file is quoted: it may be the key.
fn damage(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "is cut off: its last section has no -----END line",
        _ => "is damaged: it begins as PEM and cannot be read as such",
    }
}

fn facts(chain: &[CertificateDer<'static>]) -> Option<Certificate> {
    let certificate = x509_cert::Certificate::from_der(chain.first()?).ok()?;
    let certificate = certificate.tbs_certificate();
    Some(Certificate {
        not_before_sec: certificate.validity().not_before.to_unix_duration().as_secs(),
        not_after_sec: certificate.validity().not_after.to_unix_duration().as_secs(),
        is_self_signed: certificate.issuer() == certificate.subject(),
        count: chain.len(),
    })
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
    use aws_lc_rs::rsa::KeySize;
    use rcgen::{CertificateParams, Issuer, KeyPair};

    use super::*;
    use crate::tls::testing::{Identity, pem};

    /// Seconds since 1970 of a year's first day.
    fn year(year: u64) -> u64 {
        let leaps = (1970..year).filter(|year| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)).count() as u64;
        ((year - 1970) * 365 + leaps) * 86_400
    }

    fn certificate(identity: &Identity) -> Certificate {
        let pair = read(identity.certificate_pem.as_bytes(), identity.key_pem.as_bytes()).unwrap();
        pair.1.expect("dates that can be read")
    }

    #[test]
    fn keys_are_read_in_the_forms_that_tools_write() {
        let rsa = aws_lc_rs::rsa::KeyPair::generate(KeySize::Rsa2048).unwrap();
        let rsa: Pkcs8V1Der<'_> = rsa.as_der().unwrap();
        let rsa = pem("PRIVATE KEY", rsa.as_ref());
        let key = KeyPair::from_pem(&rsa).unwrap();
        let identity = Identity::with_key(2100, &key);
        // The older forms are what PKCS#8 wraps, behind 26 and 29 bytes for these kinds of key.
        let pkcs1 = pem("RSA PRIVATE KEY", &key.serialize_der()[26..]);
        for key in [&rsa, &pkcs1] {
            read(identity.certificate_pem.as_bytes(), key.as_bytes()).expect("a key of RSA");
        }
        let key = KeyPair::generate().unwrap();
        let identity = Identity::with_key(2100, &key);
        let der = key.serialize_der();
        let sec1 = pem("EC PARAMETERS", &[6, 8, 42, 134, 72, 206, 61, 3, 1, 7])
            + &pem("EC PRIVATE KEY", &der[der.len() - 109..]);
        for key in [&identity.key_pem, &sec1] {
            read(identity.certificate_pem.as_bytes(), key.as_bytes()).expect("a key of ECDSA");
        }
        let both = format!("{}{}", identity.key_pem, identity.certificate_pem);
        read(both.as_bytes(), both.as_bytes()).expect("one file for both, as HAProxy has it");
    }

    #[test]
    fn what_is_wrong_with_a_pair_is_said_and_not_shown() {
        let (ours, other) = (Identity::until(2100), Identity::until(2101));
        let (cert, key) = (ours.certificate_pem.as_str(), ours.key_pem.as_str());
        let misordered = format!("{}{cert}", other.certificate_pem);
        let cut = &key[..key.len() - 30];
        let damaged = key.replacen("MI", "canary!", 1);
        let sealed = "-----BEGIN ENCRYPTED PRIVATE KEY-----\ncanary\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\ncanary\n-----END RSA PRIVATE KEY-----\n";
        let der = std::str::from_utf8(&[0x30, 0x03, b'a', b'b', b'c']).unwrap().to_owned();
        let nonsense = pem("CERTIFICATE", b"canary");
        for (cert, key, part, said) in [
            (cert, other.key_pem.as_str(), PairPart::Key, "does not match the certificate"),
            (&misordered, key, PairPart::Certificate, "place 2: it must be the first"),
            (key, cert, PairPart::Certificate, "swapped"),
            (cert, cert, PairPart::Key, "swapped"),
            ("", key, PairPart::Certificate, "holds no certificate"),
            (cert, "canary", PairPart::Key, "holds no private key"),
            (cert, cut, PairPart::Key, "cut off"),
            (cert, &damaged, PairPart::Key, "damaged"),
            (cert, sealed, PairPart::Key, "passphrase"),
            (cert, old, PairPart::Key, "passphrase"),
            (&der, key, PairPart::Certificate, "is DER"),
            (cert, &der, PairPart::Key, "is DER"),
            (&nonsense, key, PairPart::Certificate, "something else than an X.509"),
            (cert, &pem("PRIVATE KEY", b"canary"), PairPart::Key, "cannot be used"),
        ] {
            let Err(error) = read(cert.as_bytes(), key.as_bytes()) else { panic!("taken: {said}") };
            assert!(error.part == part && error.problem.contains(said), "{error:?} does not say {said:?}");
            assert!(!error.problem.contains("canary"), "{error:?}");
        }
    }

    #[test]
    fn a_certificate_tells_what_clients_will_complain_about() {
        let found = certificate(&Identity::until(2030));
        let last_day = year(2031) - 86_400;
        assert_eq!((found.not_before_sec, found.not_after_sec), (year(2000), last_day));
        let say = |now: u64| found.warnings(now).join("\n");
        assert_eq!(say(year(2026)), "");
        assert!(say(last_day).contains("has expired on 2030-12-31T00:00:00Z"), "{}", say(last_day));
        assert!(say(last_day - 86_400).contains("expires on 2030-12-31"), "{}", say(last_day - 86_400));
        assert!(say(year(1999)).contains("not valid before 2000-01-01"), "{}", say(year(1999)));
    }

    #[test]
    fn a_certificate_without_its_issuer_is_noticed() {
        let (authority_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "authority");
        let authority = params.self_signed(&authority_key).unwrap();
        let issuer = Issuer::new(params, authority_key);
        let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        let facts = |chain: &str| read(chain.as_bytes(), key.serialize_pem().as_bytes()).unwrap().1.unwrap();
        let alone = facts(&leaf.pem()).warnings(year(2026)).join("\n");
        assert!(alone.contains("fullchain.pem"), "{alone}");
        let whole = format!("{}{}", leaf.pem(), authority.pem());
        assert_eq!(facts(&whole).warnings(year(2026)), Vec::<String>::new());
    }
}
