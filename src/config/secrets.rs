//! Secrets: from a variable or flag, from a file, or from systemd's credentials; and the several tokens of the API.
//!
//! A variable is seen by whoever may look at the process, and by its children; a file is not. Where a secret is named twice
//! that is an error and no order of precedence to be remembered, but that credentials give way: they are in the unit file,
//! and a setting beside them is somebody's wish. This file reads nothing: whoever calls it lends a [`ReadFile`].

use std::fmt;
use std::path::{Path, PathBuf};

use clap::Args;

use super::{ConfigError, Secret};

/// Longest file taken, in bytes: more than a thousand tokens as they are usually made.
pub const SECRET_FILE_BYTES_MAX: usize = 64 * 1024;
/// Most tokens. Each is compared with what a request shows, so this bounds what a request costs.
pub const TOKENS_MAX: usize = 64;
/// Longest token, in bytes: it also travels in paths, and request lines are bounded.
const TOKEN_BYTES_MAX: usize = 4096;
/// Shortest token, in bytes: what cannot be guessed over the network.
const TOKEN_BYTES_MIN: usize = 16;

/// Reads the file of a secret, at most [`SECRET_FILE_BYTES_MAX`]; `None` where there is no such file. The error is a phrase
/// that goes behind the file's name.
pub type ReadFile<'a> = &'a dyn Fn(&Path) -> Result<Option<Vec<u8>>, String>;

/// Where secrets are, when not in their own variables.
#[derive(Args, Clone, Debug, Default)]
pub struct SecretFlags {
    /// File with the tokens of --api-token, one a line; `#` begins a comment. SIGHUP reads it again
    #[arg(long, env = "BRIDGE_API_TOKEN_FILE", value_name = "FILE", help_heading = "HTTP API")]
    pub api_token_file: Option<PathBuf>,
    /// File with the model's API key
    #[arg(long, env = "OPENAI_API_KEY_FILE", value_name = "FILE", help_heading = "Model")]
    pub api_key_file: Option<PathBuf>,
    /// File with the token of --events-token
    #[arg(long, env = "BRIDGE_EVENTS_TOKEN_FILE", value_name = "FILE", help_heading = "Events")]
    pub events_token_file: Option<PathBuf>,
    /// File with the secret of --whatsapp-app-secret. SIGHUP reads it again
    #[arg(long, env = "WHATSAPP_APP_SECRET_FILE", value_name = "FILE", help_heading = "WhatsApp")]
    pub whatsapp_app_secret_file: Option<PathBuf>,
    /// File with the token of --whatsapp-verify-token. SIGHUP reads it again
    #[arg(long, env = "WHATSAPP_VERIFY_TOKEN_FILE", value_name = "FILE", help_heading = "WhatsApp")]
    pub whatsapp_verify_token_file: Option<PathBuf>,
    /// File with the token of --whatsapp-access-token. SIGHUP reads it again
    #[arg(long, env = "WHATSAPP_ACCESS_TOKEN_FILE", value_name = "FILE", help_heading = "WhatsApp")]
    pub whatsapp_access_token_file: Option<PathBuf>,
    /// Folder of systemd's LoadCredential=: its files api-token, openai-api-key, events-token, whatsapp-app-secret,
    /// whatsapp-verify-token and whatsapp-access-token stand in for what neither a variable nor a _FILE sets
    #[arg(long, env = "CREDENTIALS_DIRECTORY", value_name = "DIR", help_heading = "HTTP API")]
    pub credentials_directory: Option<PathBuf>,
}

/// Where a secret came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SecretSource {
    /// There is none.
    #[default]
    Nowhere,
    /// Its variable or flag.
    Setting,
    /// A file, which a setting or systemd's credentials name.
    File(PathBuf),
}

impl SecretSource {
    /// The file, where it is one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Nowhere | Self::Setting => None,
        }
    }
}

impl fmt::Display for SecretSource {
    /// For `check-config`, in place of the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nowhere => f.write_str("(none)"),
            Self::Setting => f.write_str("(hidden)"),
            Self::File(path) => write!(f, "(hidden, from {})", path.display()),
        }
    }
}

/// Where each secret came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretSources {
    /// Tokens of the HTTP API.
    pub api_token: SecretSource,
    /// The model's key.
    pub api_key: SecretSource,
    /// The token that events carry.
    pub events_token: SecretSource,
    /// The secret of Meta's app.
    pub whatsapp_app_secret: SecretSource,
    /// What Meta shows when the webhook is set up.
    pub whatsapp_verify_token: SecretSource,
    /// What asks the Graph API.
    pub whatsapp_access_token: SecretSource,
}

/// What the variables and flags themselves say.
#[derive(Debug, Default)]
pub(super) struct Plain {
    pub(super) api_token: Option<Secret>,
    pub(super) api_key: Option<Secret>,
    pub(super) events_token: Option<Secret>,
    pub(super) whatsapp_app_secret: Option<Secret>,
    pub(super) whatsapp_verify_token: Option<Secret>,
    pub(super) whatsapp_access_token: Option<Secret>,
}

/// All secrets, checked, and where they came from.
#[derive(Debug, Default)]
pub(super) struct Secrets {
    pub(super) api_tokens: Vec<Secret>,
    pub(super) api_key: Option<Secret>,
    pub(super) events_token: Option<Secret>,
    pub(super) whatsapp_app_secret: Option<Secret>,
    pub(super) whatsapp_verify_token: Option<Secret>,
    pub(super) whatsapp_access_token: Option<Secret>,
    pub(super) sources: SecretSources,
}

/// What one secret is called.
struct Names {
    setting: &'static str,
    file: &'static str,
    credential: &'static str,
    in_credentials: &'static str,
}

const API_TOKEN: Names = Names {
    setting: "BRIDGE_API_TOKEN (--api-token)",
    file: "BRIDGE_API_TOKEN_FILE (--api-token-file)",
    credential: "api-token",
    in_credentials: "api-token in CREDENTIALS_DIRECTORY (LoadCredential=)",
};
const API_KEY: Names = Names {
    setting: "OPENAI_API_KEY (--api-key)",
    file: "OPENAI_API_KEY_FILE (--api-key-file)",
    credential: "openai-api-key",
    in_credentials: "openai-api-key in CREDENTIALS_DIRECTORY (LoadCredential=)",
};
const EVENTS_TOKEN: Names = Names {
    setting: "BRIDGE_EVENTS_TOKEN (--events-token)",
    file: "BRIDGE_EVENTS_TOKEN_FILE (--events-token-file)",
    credential: "events-token",
    in_credentials: "events-token in CREDENTIALS_DIRECTORY (LoadCredential=)",
};
const APP_SECRET: Names = Names {
    setting: "WHATSAPP_APP_SECRET (--whatsapp-app-secret)",
    file: "WHATSAPP_APP_SECRET_FILE (--whatsapp-app-secret-file)",
    credential: "whatsapp-app-secret",
    in_credentials: "whatsapp-app-secret in CREDENTIALS_DIRECTORY (LoadCredential=)",
};
const VERIFY_TOKEN: Names = Names {
    setting: "WHATSAPP_VERIFY_TOKEN (--whatsapp-verify-token)",
    file: "WHATSAPP_VERIFY_TOKEN_FILE (--whatsapp-verify-token-file)",
    credential: "whatsapp-verify-token",
    in_credentials: "whatsapp-verify-token in CREDENTIALS_DIRECTORY (LoadCredential=)",
};
const ACCESS_TOKEN: Names = Names {
    setting: "WHATSAPP_ACCESS_TOKEN (--whatsapp-access-token)",
    file: "WHATSAPP_ACCESS_TOKEN_FILE (--whatsapp-access-token-file)",
    credential: "whatsapp-access-token",
    in_credentials: "whatsapp-access-token in CREDENTIALS_DIRECTORY (LoadCredential=)",
};

/// The text of a secret and who is to blame for it.
struct Found {
    text: Vec<u8>,
    source: SecretSource,
    setting: &'static str,
}

impl Found {
    fn fail(&self, problem: &str) -> ConfigError {
        let problem = match self.source.file() {
            Some(path) => format!("names {}, which {problem}", path.display()),
            None => problem.to_owned(),
        };
        ConfigError { setting: self.setting, problem }
    }
}

/// Finds and checks all secrets.
pub(super) fn secrets(flags: &SecretFlags, plain: Plain, read: ReadFile<'_>) -> Result<Secrets, ConfigError> {
    let folder = flags.credentials_directory.as_deref();
    let mut secrets = Secrets::default();
    if let Some(found) = find(&API_TOKEN, plain.api_token, flags.api_token_file.as_deref(), folder, read)? {
        let tokens = match found.source {
            SecretSource::File(_) => tokens_of_file(&found.text),
            _ => tokens_of_setting(&found.text),
        };
        secrets.api_tokens = tokens.map_err(|problem| found.fail(&problem))?;
        secrets.sources.api_token = found.source;
    }
    let one = |names, plain, file: &Option<PathBuf>, what, source: &mut SecretSource| {
        let Some(found) = find(names, plain, file.as_deref(), folder, read)? else { return Ok(None) };
        let secret = single(&found, what)?;
        *source = found.source;
        Ok(Some(secret))
    };
    let (sources, token) = (&mut secrets.sources, "the bare token");
    secrets.api_key = one(&API_KEY, plain.api_key, &flags.api_key_file, "the bare key", &mut sources.api_key)?;
    secrets.events_token =
        one(&EVENTS_TOKEN, plain.events_token, &flags.events_token_file, token, &mut sources.events_token)?;
    secrets.whatsapp_app_secret = one(
        &APP_SECRET,
        plain.whatsapp_app_secret,
        &flags.whatsapp_app_secret_file,
        "the bare secret",
        &mut sources.whatsapp_app_secret,
    )?;
    secrets.whatsapp_verify_token = one(
        &VERIFY_TOKEN,
        plain.whatsapp_verify_token,
        &flags.whatsapp_verify_token_file,
        token,
        &mut sources.whatsapp_verify_token,
    )?;
    secrets.whatsapp_access_token = one(
        &ACCESS_TOKEN,
        plain.whatsapp_access_token,
        &flags.whatsapp_access_token_file,
        token,
        &mut sources.whatsapp_access_token,
    )?;
    Ok(secrets)
}

fn find(
    names: &Names,
    plain: Option<Secret>,
    file: Option<&Path>,
    credentials: Option<&Path>,
    read: ReadFile<'_>,
) -> Result<Option<Found>, ConfigError> {
    let plain = plain.filter(|secret| !secret.expose().is_empty());
    let file = file.filter(|path| !path.as_os_str().is_empty());
    if plain.is_some() && file.is_some() {
        let problem = format!("is set, and {} as well: keep the one that is meant", names.setting);
        return Err(ConfigError { setting: names.file, problem });
    }
    if let Some(secret) = plain {
        let text = secret.expose().as_bytes().to_vec();
        return Ok(Some(Found { text, source: SecretSource::Setting, setting: names.setting }));
    }
    let found = |setting, path: &Path| {
        let failed = |problem| ConfigError { setting, problem: format!("names {}, which {problem}", path.display()) };
        let text = read(path).map_err(failed)?;
        Ok(text.map(|text| Found { text, source: SecretSource::File(path.to_owned()), setting }))
    };
    if let Some(path) = file {
        let missing =
            || ConfigError { setting: names.file, problem: format!("names {}, which does not exist", path.display()) };
        return found(names.file, path)?.ok_or_else(missing).map(Some);
    }
    let Some(folder) = credentials.filter(|folder| !folder.as_os_str().is_empty()) else { return Ok(None) };
    // LoadCredential=credentials:FOLDER gives each file of the folder the prefix.
    for name in [names.credential.to_owned(), format!("credentials_{}", names.credential)] {
        if let Some(found) = found(names.in_credentials, &folder.join(name))? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The text without the one line end that editors put behind it.
fn without_line_end(text: &[u8]) -> &[u8] {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    text.strip_suffix(b"\r").unwrap_or(text)
}

fn single(found: &Found, what: &str) -> Result<Secret, ConfigError> {
    let text = match found.source {
        SecretSource::File(_) => without_line_end(&found.text),
        _ => &found.text,
    };
    bare(text, what).map_err(|problem| found.fail(&problem))
}

/// The one secret of a file, which is called this: the bare token, say. The error is a phrase that goes behind the file's name,
/// and shows nothing of what is in it.
pub fn secret_of_file(bytes: &[u8], what: &str) -> Result<Secret, String> {
    bare(without_line_end(bytes), what)
}

fn bare(text: &[u8], what: &str) -> Result<Secret, String> {
    if text.is_empty() {
        return Err(format!("is empty; it must hold {what}"));
    }
    match std::str::from_utf8(text) {
        Ok(text) if text.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(Secret::new(text)),
        _ => Err(format!("contains a space or a line end; it must be {what}")),
    }
}

/// The tokens of a file: one a line, `#` comments and empty lines between them. The error is a phrase that goes behind the
/// file's name, and shows nothing of what is in it.
pub fn tokens_of_file(bytes: &[u8]) -> Result<Vec<Secret>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "is not text".to_owned())?;
    let mut tokens = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let token = line.split('#').next().unwrap_or_default().trim();
        if !token.is_empty() {
            tokens.push(token_of(token).map_err(|rule| format!("has a token in line {} that {rule}", number + 1))?);
        }
    }
    within_bounds(tokens)
}

/// The tokens of the variable or flag, separated by commas.
fn tokens_of_setting(bytes: &[u8]) -> Result<Vec<Secret>, String> {
    let text = std::str::from_utf8(bytes).expect("it was a string");
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    within_bounds(parts.map(token_of).collect::<Result<_, _>>()?)
}

/// What a client shows of the list that a server is given: the first of its tokens.
pub fn first_token(list: &Secret) -> Secret {
    Secret::new(list.expose().split(',').map(str::trim).find(|token| !token.is_empty()).unwrap_or_default())
}

fn within_bounds(tokens: Vec<Secret>) -> Result<Vec<Secret>, String> {
    match tokens.len() {
        0 => Err("holds no token; make one with: openssl rand -hex 32".into()),
        1..=TOKENS_MAX => Ok(tokens),
        n => Err(format!("holds {n} tokens; {TOKENS_MAX} are the most")),
    }
}

fn token_of(text: &str) -> Result<Secret, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    if (TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&text.len()) && text.bytes().all(plain) {
        return Ok(Secret::new(text));
    }
    Err(format!(
        "must be at least {TOKEN_BYTES_MIN} letters, digits or -._~ (it also travels in paths); make one with: \
         openssl rand -hex 32"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "0123456789abcdef";
    const B: &str = "fedcba9876543210";

    /// Files by their path; all else does not exist.
    fn files(present: &'static [(&str, &str)]) -> impl Fn(&Path) -> Result<Option<Vec<u8>>, String> {
        move |path| match present.iter().find(|(name, _)| Path::new(name) == path) {
            Some((_, "!denied")) => Err("cannot be read: permission denied".into()),
            Some((_, text)) => Ok(Some(text.as_bytes().to_vec())),
            None => Ok(None),
        }
    }

    fn exposed(tokens: &[Secret]) -> Vec<&str> {
        tokens.iter().map(Secret::expose).collect()
    }

    fn with(flags: &SecretFlags, plain: [Option<&str>; 3], read: ReadFile<'_>) -> Result<Secrets, ConfigError> {
        let [api_token, api_key, events_token] = plain.map(|text| text.map(Secret::new));
        secrets(flags, Plain { api_token, api_key, events_token, ..Plain::default() }, read)
    }

    #[test]
    fn a_variable_holds_several_tokens_between_commas() {
        let text = format!("{A}, {B},");
        let found = with(&SecretFlags::default(), [Some(&text), None, None], &files(&[])).unwrap();
        assert_eq!(exposed(&found.api_tokens), [A, B]);
        assert_eq!(found.sources.api_token, SecretSource::Setting);
        assert_eq!(first_token(&Secret::new(text)).expose(), A);
    }

    #[test]
    fn a_file_holds_one_token_a_line_with_comments() {
        let text = format!("# of the webhook\r\n{A}\r\n\n  {B}  # of the balancer\n");
        assert_eq!(exposed(&tokens_of_file(text.as_bytes()).unwrap()), [A, B]);
    }

    #[test]
    fn a_single_secret_loses_the_line_end_that_an_editor_adds_and_no_more() {
        for text in ["sk-key", "sk-key\n", "sk-key\r\n"] {
            let read = |_: &Path| Ok(Some(text.as_bytes().to_vec()));
            let flags = SecretFlags { api_key_file: Some("/key".into()), ..SecretFlags::default() };
            let found = with(&flags, [None; 3], &read).unwrap();
            assert_eq!(found.api_key.unwrap().expose(), "sk-key");
            assert_eq!(found.sources.api_key.to_string(), "(hidden, from /key)");
        }
    }

    #[test]
    fn credentials_stand_in_for_what_nothing_else_sets() {
        let read = files(&[
            ("/run/c/api-token", "0123456789abcdef\n"),
            ("/run/c/credentials_openai-api-key", "sk-credential\n"),
            ("/run/c/credentials_events-token", "event-credential"),
            ("/etc/key", "sk-file"),
        ]);
        let folder = || SecretFlags { credentials_directory: Some("/run/c".into()), ..SecretFlags::default() };
        let found = with(&folder(), [None, None, Some("event-setting")], &read).unwrap();
        assert_eq!(exposed(&found.api_tokens), [A]);
        assert_eq!(found.api_key.unwrap().expose(), "sk-credential");
        assert_eq!(found.events_token.unwrap().expose(), "event-setting");
        assert_eq!(found.sources.api_key, SecretSource::File("/run/c/credentials_openai-api-key".into()));
        let flags = SecretFlags { api_key_file: Some("/etc/key".into()), ..folder() };
        assert_eq!(with(&flags, [None; 3], &read).unwrap().api_key.unwrap().expose(), "sk-file");
        let elsewhere = SecretFlags { credentials_directory: Some("/nowhere".into()), ..SecretFlags::default() };
        assert!(with(&elsewhere, [None; 3], &read).unwrap().api_tokens.is_empty());
    }

    #[test]
    fn metas_secrets_come_from_files_and_credentials_like_the_others() {
        let read = files(&[
            ("/app", "app-secret\n"),
            ("/run/c/credentials_whatsapp-verify-token", "verify\n"),
            ("/run/c/whatsapp-access-token", "access"),
            ("/run/c/whatsapp-app-secret", "of the credentials"),
        ]);
        let flags = SecretFlags {
            whatsapp_app_secret_file: Some("/app".into()),
            credentials_directory: Some("/run/c".into()),
            ..SecretFlags::default()
        };
        let found = with(&flags, [None; 3], &read).unwrap();
        let text = |secret: &Option<Secret>| secret.as_ref().unwrap().expose().to_owned();
        assert_eq!(text(&found.whatsapp_app_secret), "app-secret");
        assert_eq!(text(&found.whatsapp_verify_token), "verify");
        assert_eq!(text(&found.whatsapp_access_token), "access");
        assert_eq!(found.sources.whatsapp_app_secret, SecretSource::File("/app".into()));
        assert_eq!(
            found.sources.whatsapp_verify_token,
            SecretSource::File("/run/c/credentials_whatsapp-verify-token".into())
        );
        let error = with(&SecretFlags { whatsapp_app_secret_file: None, ..flags }, [None; 3], &read).unwrap_err();
        assert!(error.to_string().starts_with("whatsapp-app-secret in CREDENTIALS_DIRECTORY"), "{error}");
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_name_and_never_shown() {
        let read = files(&[
            ("/short", "# ok\ncanary"),
            ("/empty", "\n"),
            ("/comment", "# no token yet\n"),
            ("/lines", "canary\ncanary"),
            ("/denied", "!denied"),
            ("/run/c/api-token", "canary canary canary"),
        ]);
        let file = |path: &str| Some(PathBuf::from(path));
        let none = SecretFlags::default;
        let many = vec![A; TOKENS_MAX + 1].join(",");
        let long = "a".repeat(TOKEN_BYTES_MAX + 1);
        for (flags, plain, said) in [
            (
                SecretFlags { api_token_file: file("/short"), ..none() },
                [Some(A), None, None],
                &["BRIDGE_API_TOKEN_FILE", "BRIDGE_API_TOKEN (--api-token)"][..],
            ),
            (
                SecretFlags { api_key_file: file("/x"), ..none() },
                [None, Some("sk"), None],
                &["OPENAI_API_KEY_FILE", "OPENAI_API_KEY (--api-key)"],
            ),
            (
                SecretFlags { events_token_file: file("/x"), ..none() },
                [None, None, Some("e")],
                &["BRIDGE_EVENTS_TOKEN_FILE", "BRIDGE_EVENTS_TOKEN (--events-token)"],
            ),
            (
                SecretFlags { api_token_file: file("/short"), ..none() },
                [None; 3],
                &["BRIDGE_API_TOKEN_FILE", "/short", "line 2", "16 letters"],
            ),
            (
                SecretFlags { api_token_file: file("/comment"), ..none() },
                [None; 3],
                &["holds no token", "openssl rand"],
            ),
            (SecretFlags { api_token_file: file("/gone"), ..none() }, [None; 3], &["/gone", "does not exist"]),
            (SecretFlags { api_token_file: file("/denied"), ..none() }, [None; 3], &["/denied", "permission denied"]),
            (SecretFlags { api_key_file: file("/empty"), ..none() }, [None; 3], &["OPENAI_API_KEY_FILE", "is empty"]),
            (SecretFlags { api_key_file: file("/lines"), ..none() }, [None; 3], &["OPENAI_API_KEY_FILE", "line end"]),
            (
                SecretFlags { credentials_directory: file("/run/c"), ..none() },
                [None; 3],
                &["api-token in CREDENTIALS_DIRECTORY", "/run/c/api-token"],
            ),
            (none(), [Some(","), None, None], &["BRIDGE_API_TOKEN", "holds no token"]),
            (none(), [Some("0123456789abcdef,canary"), None, None], &["BRIDGE_API_TOKEN", "16 letters"]),
            (none(), [Some(&many), None, None], &["65 tokens"]),
            (none(), [Some(&long), None, None], &["BRIDGE_API_TOKEN"]),
            (none(), [None, None, Some("two canary")], &["BRIDGE_EVENTS_TOKEN", "bare token"]),
        ] {
            let error = with(&flags, plain, &read).expect_err("nonsense was taken").to_string();
            assert!(said.iter().all(|word| error.contains(word)), "{said:?} is not in: {error}");
            assert!(!error.contains("canary"), "{error}");
        }
    }

    #[test]
    fn tokens_of_a_file_never_panic_whatever_is_in_it() {
        let seed = format!("# a\n{A}\n{B} # c\r\n");
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        for _ in 0..20_000 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let mut bytes = seed.clone().into_bytes();
            let at = state as usize % bytes.len();
            bytes[at] = (state >> 32) as u8;
            if let Ok(tokens) = tokens_of_file(&bytes) {
                assert!(tokens.iter().all(|token| token.expose().len() >= TOKEN_BYTES_MIN));
            }
        }
    }
}
