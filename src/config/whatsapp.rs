//! Meta's webhook and its Graph API: what is said on the command line, checked.
//!
//! A phone number, or a file of them, turns it on; then Meta's secrets must be there. What is in the file is for whoever
//! reads it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;

use super::secrets::Secrets;
use super::{ConfigError, EventsUrl, Secret, SecretSource};

/// Where webhooks are taken.
pub const WEBHOOK_PATH: &str = "/webhooks/whatsapp";

/// Longest id of a phone number, in digits: they have fifteen or sixteen.
const NUMBER_ID_DIGITS_MAX: usize = 32;

const NUMBER_ID: &str = "WHATSAPP_PHONE_NUMBER_ID (--whatsapp-phone-number-id)";
const NUMBERS: &str = "BRIDGE_WHATSAPP_NUMBERS (--whatsapp-numbers)";
const APP_SECRET: &str = "WHATSAPP_APP_SECRET (--whatsapp-app-secret)";
const VERIFY_TOKEN: &str = "WHATSAPP_VERIFY_TOKEN (--whatsapp-verify-token)";
const ACCESS_TOKEN: &str = "WHATSAPP_ACCESS_TOKEN (--whatsapp-access-token)";
const FORWARD_URL: &str = "BRIDGE_WEBHOOK_FORWARD_URL (--webhook-forward-url)";

/// What the user said of WhatsApp, by flag or by environment.
#[derive(Args, Clone, Debug)]
pub struct WhatsAppFlags {
    /// Take calls from Meta's webhook, at `/webhooks/whatsapp`, for this number: Meta's id of it, in the app dashboard
    /// under WhatsApp, API Setup
    #[arg(
        long = "whatsapp-phone-number-id",
        id = "whatsapp_phone_number_id",
        env = "WHATSAPP_PHONE_NUMBER_ID",
        value_name = "ID",
        help_heading = "WhatsApp"
    )]
    pub phone_number_id: Option<String>,
    /// File of several numbers, each with its own instructions, voice and tokens (TOML). SIGHUP reads it again
    #[arg(
        long = "whatsapp-numbers",
        id = "whatsapp_numbers",
        env = "BRIDGE_WHATSAPP_NUMBERS",
        value_name = "FILE",
        help_heading = "WhatsApp"
    )]
    pub numbers: Option<PathBuf>,
    /// Secret of Meta's app, which signs each webhook: in the app dashboard under App settings, Basic
    #[arg(
        long = "whatsapp-app-secret",
        id = "whatsapp_app_secret",
        env = "WHATSAPP_APP_SECRET",
        value_name = "SECRET",
        hide_env_values = true,
        help_heading = "WhatsApp"
    )]
    pub app_secret: Option<Secret>,
    /// Any word of yours, to be given to Meta with the webhook's URL: in the app dashboard under WhatsApp, Configuration
    #[arg(
        long = "whatsapp-verify-token",
        id = "whatsapp_verify_token",
        env = "WHATSAPP_VERIFY_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true,
        help_heading = "WhatsApp"
    )]
    pub verify_token: Option<Secret>,
    /// Token that asks the Graph API: of a system user of the business, with the right whatsapp_business_messaging
    #[arg(
        long = "whatsapp-access-token",
        id = "whatsapp_access_token",
        env = "WHATSAPP_ACCESS_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true,
        help_heading = "WhatsApp"
    )]
    pub access_token: Option<Secret>,
    /// Where Meta's Graph API is; `http://` only to loopback
    #[arg(
        long,
        env = "BRIDGE_GRAPH_URL",
        value_name = "URL",
        default_value = "https://graph.facebook.com",
        help_heading = "WhatsApp"
    )]
    pub graph_url: String,
    /// Version of the Graph API
    #[arg(
        long,
        env = "BRIDGE_GRAPH_VERSION",
        value_name = "VERSION",
        default_value = "v24.0",
        help_heading = "WhatsApp"
    )]
    pub graph_version: String,
    /// Pass webhooks that hold more than calls on to this URL, unchanged, with Meta's signature: messages, statuses
    #[arg(
        long,
        env = "BRIDGE_WEBHOOK_FORWARD_URL",
        value_name = "URL",
        hide_env_values = true,
        help_heading = "WhatsApp"
    )]
    pub webhook_forward_url: Option<String>,
    /// Folder of what must outlive a crash: which calls Meta believes alive, so that the next start ends them there
    #[arg(long, env = "BRIDGE_STATE_DIR", value_name = "DIR", help_heading = "WhatsApp")]
    pub state_dir: Option<PathBuf>,
}

/// What is known of WhatsApp before any file is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WhatsApp {
    /// Any of them may have signed a webhook; those that the file of numbers names come on top.
    pub app_secret: Option<Secret>,
    /// What Meta shows when the webhook is set up.
    pub verify_token: Secret,
    /// Of numbers that name none.
    pub access_token: Option<Secret>,
    /// The only number, where there is no file.
    pub phone_number_id: Option<String>,
    /// The file of numbers.
    pub numbers_file: Option<PathBuf>,
    /// The Graph API, version included: `https://graph.facebook.com/v24.0`.
    pub graph_url: EventsUrl,
    /// Where webhooks go that hold more than call events; `None`: nowhere.
    pub forward_url: Option<EventsUrl>,
}

impl WhatsApp {
    /// The variable and the flag that name the file of numbers.
    pub const NUMBERS: &'static str = NUMBERS;
    /// The variable and the flag of the app's secret.
    pub const APP_SECRET: &'static str = APP_SECRET;
    /// The variable and the flag of the webhook's word.
    pub const VERIFY_TOKEN: &'static str = VERIFY_TOKEN;
    /// The variable and the flag of the token.
    pub const ACCESS_TOKEN: &'static str = ACCESS_TOKEN;
    /// The variable and the flag of the Graph API.
    pub const GRAPH_URL: &'static str = "BRIDGE_GRAPH_URL (--graph-url)";
    /// The variable and the flag of the receiver.
    pub const FORWARD_URL: &'static str = FORWARD_URL;

    /// The Graph API's URL and version, as the settings have them.
    pub(super) fn graph(&self) -> (String, String) {
        let url = self.graph_url.expose();
        let (server, version) = url.rsplit_once('/').expect("they were joined by it");
        (server.to_owned(), version.to_owned())
    }
}

impl WhatsAppFlags {
    pub(super) fn state_dir(&self) -> Result<Option<PathBuf>, ConfigError> {
        match self.state_dir.as_ref().filter(|folder| !folder.as_os_str().is_empty()) {
            Some(folder) if !folder.is_absolute() => Err(ConfigError {
                setting: "BRIDGE_STATE_DIR (--state-dir)",
                problem: "must be an absolute path".into(),
            }),
            folder => Ok(folder.cloned()),
        }
    }

    /// Whether WhatsApp is on, and whether all is there then. Takes its secrets out of those that were found; credentials are
    /// in this folder, and are nobody's wish where there is no number.
    pub(super) fn checked(
        self,
        secrets: &mut Secrets,
        credentials: Option<&Path>,
        listen: SocketAddr,
        allow_plaintext: bool,
    ) -> Result<Option<WhatsApp>, ConfigError> {
        let fail = |setting, problem: &str| Err(ConfigError { setting, problem: problem.into() });
        let phone_number_id = self.phone_number_id.filter(|id| !id.is_empty());
        let numbers_file = self.numbers.filter(|path| !path.as_os_str().is_empty());
        let forward_url = self.webhook_forward_url.filter(|url| !url.is_empty());
        let (app_secret, verify_token, access_token) = (
            secrets.whatsapp_app_secret.take(),
            secrets.whatsapp_verify_token.take(),
            secrets.whatsapp_access_token.take(),
        );
        if phone_number_id.is_none() && numbers_file.is_none() {
            let is_wish = |source: &SecretSource| match source {
                SecretSource::Nowhere => false,
                SecretSource::Setting => true,
                SecretSource::File(path) => !credentials.is_some_and(|folder| path.starts_with(folder)),
            };
            let sources = &secrets.sources;
            let set = [
                (is_wish(&sources.whatsapp_app_secret), "a secret of WhatsApp is set (WHATSAPP_APP_SECRET)"),
                (is_wish(&sources.whatsapp_verify_token), "a secret of WhatsApp is set (WHATSAPP_VERIFY_TOKEN)"),
                (is_wish(&sources.whatsapp_access_token), "a secret of WhatsApp is set (WHATSAPP_ACCESS_TOKEN)"),
                (forward_url.is_some(), "BRIDGE_WEBHOOK_FORWARD_URL is set"),
            ];
            let Some((_, what)) = set.into_iter().find(|(is_set, _)| *is_set) else { return Ok(None) };
            let problem =
                format!("is needed where {what}, or BRIDGE_WHATSAPP_NUMBERS: no webhook is taken without a number");
            return fail(NUMBER_ID, &problem);
        }
        if phone_number_id.is_some() && numbers_file.is_some() {
            return fail(NUMBERS, "is set, and WHATSAPP_PHONE_NUMBER_ID as well: keep the one that is meant");
        }
        if let Some(id) = &phone_number_id
            && !is_number_id(id)
        {
            let problem = "must be Meta's id of the number, digits alone, and not the number itself: in Meta's app dashboard \
                           under WhatsApp, API Setup";
            return fail(NUMBER_ID, problem);
        }
        let Some(verify_token) = verify_token else {
            let problem = "is needed to take Meta's webhook: any word of yours, the one that you give to Meta's app dashboard \
                           under WhatsApp, Configuration; make one with: openssl rand -hex 32";
            return fail(VERIFY_TOKEN, problem);
        };
        if phone_number_id.is_some() && app_secret.is_none() {
            let problem =
                "is needed to take Meta's webhook, which it signs: in Meta's app dashboard under App settings, Basic";
            return fail(APP_SECRET, problem);
        }
        if phone_number_id.is_some() && access_token.is_none() {
            let problem = "is needed to answer calls through the Graph API: a token of a system user with the right \
                           whatsapp_business_messaging, in Meta's business settings under Users, System users (the one in the \
                           app dashboard under WhatsApp, API Setup, ends after a day)";
            return fail(ACCESS_TOKEN, problem);
        }
        let graph_url = graph_url(self.graph_url.trim_end_matches('/'), &self.graph_version)?;
        let forward_url = forward_url.map(|url| receiver(&url, listen, allow_plaintext)).transpose()?;
        Ok(Some(WhatsApp {
            app_secret,
            verify_token,
            access_token,
            phone_number_id,
            numbers_file,
            graph_url,
            forward_url,
        }))
    }
}

fn is_number_id(id: &str) -> bool {
    id.len() <= NUMBER_ID_DIGITS_MAX && id.bytes().all(|byte| byte.is_ascii_digit())
}

fn graph_url(server: &str, version: &str) -> Result<EventsUrl, ConfigError> {
    let digits = |text: &str| (1..=3).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_version = version
        .strip_prefix('v')
        .and_then(|numbers| numbers.split_once('.'))
        .is_some_and(|(major, minor)| digits(major) && digits(minor));
    if !is_version {
        let problem = "must be a version of the Graph API such as v24.0".into();
        return Err(ConfigError { setting: "BRIDGE_GRAPH_VERSION (--graph-version)", problem });
    }
    let fail = |problem: String| ConfigError { setting: WhatsApp::GRAPH_URL, problem };
    if server.contains('?') {
        return Err(fail("must have no query: the path of each request goes behind it".into()));
    }
    let url = EventsUrl::parse(&format!("{server}/{version}")).map_err(fail)?;
    if !url.place().tls && !url.place().is_loopback() {
        return Err(fail("is http:// beyond loopback: tokens and call ids would travel in clear. Use https://".into()));
    }
    Ok(url)
}

/// Where webhooks are passed on to.
fn receiver(url: &str, listen: SocketAddr, allow_plaintext: bool) -> Result<EventsUrl, ConfigError> {
    let fail = |problem: String| ConfigError { setting: FORWARD_URL, problem };
    let url = EventsUrl::parse(url).map_err(fail)?;
    let place = url.place();
    if !place.tls && !place.is_loopback() && !allow_plaintext {
        return Err(fail(
            "is http:// beyond loopback: what people write would travel in clear. Use https://, or set \
             BRIDGE_ALLOW_PLAINTEXT_EVENTS=1"
                .into(),
        ));
    }
    if place.is_loopback() && place.port == listen.port() && place.path.starts_with(WEBHOOK_PATH) {
        return Err(fail("is this bridge's own webhook: what it passes on would come back for ever".into()));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::Config;
    use super::super::tests::{Line, config};
    use super::*;

    const NUMBER: &str = "--whatsapp-phone-number-id=106540352242922";
    const SECRETS: [&str; 3] = [
        "--whatsapp-app-secret=canary-app",
        "--whatsapp-verify-token=canary-verify",
        "--whatsapp-access-token=canary-access",
    ];

    /// One number with all that it needs, and this.
    fn with(words: &[&str]) -> Result<WhatsApp, ConfigError> {
        config(&[&[NUMBER], &SECRETS[..], words].concat()).map(|config| config.whatsapp.expect("a number turns it on"))
    }

    #[test]
    fn a_number_with_its_secrets_is_all_it_takes() {
        let config = config(&[&[NUMBER], &SECRETS[..], &["--state-dir=/var/lib/x"]].concat()).unwrap();
        let whatsapp = config.whatsapp.clone().unwrap();
        assert_eq!(whatsapp.graph_url.expose(), "https://graph.facebook.com/v24.0");
        assert_eq!(whatsapp.phone_number_id.as_deref(), Some("106540352242922"));
        assert_eq!((whatsapp.forward_url, config.state_dir.as_deref()), (None, Some("/var/lib/x".as_ref())));
        let shown = format!("{config} {config:?}");
        assert!(!shown.contains("canary"), "{shown}");
        for line in [
            "WHATSAPP_PHONE_NUMBER_ID   106540352242922",
            "WHATSAPP_APP_SECRET        (hidden)",
            "BRIDGE_GRAPH_URL           https://graph.facebook.com",
            "BRIDGE_GRAPH_VERSION       v24.0",
            "BRIDGE_STATE_DIR           /var/lib/x",
        ] {
            assert!(shown.contains(line), "{line} is not in:\n{shown}");
        }
    }

    #[test]
    fn a_file_of_numbers_may_name_its_secrets_itself() {
        let config = config(&["--whatsapp-numbers=/etc/numbers.toml", SECRETS[1]]).unwrap();
        let whatsapp = config.whatsapp.unwrap();
        assert_eq!(whatsapp.numbers_file, Some("/etc/numbers.toml".into()));
        assert_eq!((whatsapp.app_secret, whatsapp.access_token), (None, None));
    }

    #[test]
    fn without_a_number_there_is_no_webhook() {
        assert!(config(&[]).unwrap().whatsapp.is_none());
        assert!(config(&["--whatsapp-phone-number-id=", "--whatsapp-app-secret="]).unwrap().whatsapp.is_none());
        for word in [SECRETS[0], SECRETS[1], SECRETS[2], "--webhook-forward-url=https://hooks.example/"] {
            let error = config(&[word]).unwrap_err().to_string();
            assert!(
                error.starts_with("WHATSAPP_PHONE_NUMBER_ID") && error.contains("BRIDGE_WHATSAPP_NUMBERS"),
                "{error}"
            );
            assert!(!error.contains("canary"), "{error}");
        }
    }

    #[test]
    fn credentials_alone_turn_nothing_on_and_are_in_nobodys_way() {
        let line = Line::try_parse_from(["bridge", "--credentials-directory=/run/c"]).unwrap();
        let read = |path: &Path| Ok(path.starts_with("/run/c").then(|| b"a-credential-of-sixteen".to_vec()));
        let config = Config::from_flags_and_files(line.flags, 2, &read);
        // The events' token is a wish even there.
        assert!(config.unwrap_err().setting.starts_with("BRIDGE_EVENTS_URL"));
        let line =
            Line::try_parse_from(["bridge", "--credentials-directory=/run/c", "--events-url=http://[::1]/"]).unwrap();
        assert_eq!(Config::from_flags_and_files(line.flags, 2, &read).unwrap().whatsapp, None);
    }

    #[test]
    fn each_secret_that_is_missing_is_named_with_the_place_where_meta_has_it() {
        for (missing, setting, place) in [
            (0, "WHATSAPP_APP_SECRET", "App settings, Basic"),
            (1, "WHATSAPP_VERIFY_TOKEN", "WhatsApp, Configuration"),
            (2, "WHATSAPP_ACCESS_TOKEN", "System users"),
        ] {
            let mut words = vec![NUMBER];
            words.extend(SECRETS.iter().enumerate().filter(|(index, _)| *index != missing).map(|(_, word)| word));
            let error = config(&words).unwrap_err().to_string();
            assert!(error.starts_with(setting) && error.contains(place), "{error}");
        }
        let error = config(&["--whatsapp-numbers=/etc/numbers.toml"]).unwrap_err();
        assert!(error.setting.starts_with("WHATSAPP_VERIFY_TOKEN"), "{error}");
    }

    #[test]
    fn every_nonsense_is_refused_by_the_name_of_its_setting() {
        for (word, setting, said) in [
            ("--whatsapp-numbers=/etc/numbers.toml", "BRIDGE_WHATSAPP_NUMBERS", "keep the one"),
            ("--graph-version=24", "BRIDGE_GRAPH_VERSION", "v24.0"),
            ("--graph-version=v24", "BRIDGE_GRAPH_VERSION", "v24.0"),
            ("--graph-version=v24.0/x", "BRIDGE_GRAPH_VERSION", "v24.0"),
            ("--graph-url=graph.facebook.com", "BRIDGE_GRAPH_URL", "https://"),
            ("--graph-url=http://graph.example", "BRIDGE_GRAPH_URL", "in clear"),
            ("--graph-url=https://graph.example?x=y", "BRIDGE_GRAPH_URL", "no query"),
            (
                "--webhook-forward-url=http://hooks.example/",
                "BRIDGE_WEBHOOK_FORWARD_URL",
                "BRIDGE_ALLOW_PLAINTEXT_EVENTS=1",
            ),
            ("--webhook-forward-url=ftp://hooks.example/", "BRIDGE_WEBHOOK_FORWARD_URL", "https://"),
            ("--webhook-forward-url=http://localhost:8080/webhooks/whatsapp", "BRIDGE_WEBHOOK_FORWARD_URL", "for ever"),
            ("--state-dir=here", "BRIDGE_STATE_DIR", "absolute"),
        ] {
            let error = with(&[word]).expect_err(&format!("{word} was taken")).to_string();
            assert!(error.starts_with(setting) && error.contains(said), "{word}: {error}");
        }
        for id in ["+491701234567", "49170 1234567", "123456789012345678901234567890123"] {
            let error = config(&[&[&*format!("--whatsapp-phone-number-id={id}")], &SECRETS[..]].concat()).unwrap_err();
            assert!(error.setting.starts_with("WHATSAPP_PHONE_NUMBER_ID"), "{error}");
            assert!(!error.to_string().contains("1234567"), "{error}");
        }
    }

    #[test]
    fn a_graph_api_and_a_receiver_on_loopback_may_be_plain() {
        let whatsapp =
            with(&["--graph-url=http://127.0.0.1:9/", "--webhook-forward-url=http://[::1]:9/hook?a=b"]).unwrap();
        assert_eq!(whatsapp.graph_url.expose(), "http://127.0.0.1:9/v24.0");
        assert_eq!(whatsapp.graph(), ("http://127.0.0.1:9".to_owned(), "v24.0".to_owned()));
        assert_eq!(whatsapp.forward_url.unwrap().expose(), "http://[::1]:9/hook?a=b");
        let forward = "--webhook-forward-url=http://hooks.example/";
        assert!(with(&[forward, "--allow-plaintext-events"]).is_ok());
        assert!(with(&["--webhook-forward-url=http://localhost:8080/other"]).is_ok());
    }
}
