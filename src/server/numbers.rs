//! Reads the phone numbers of WhatsApp and the secrets that go with them: at the start, on SIGHUP, and for `check-config`.
//!
//! It only reads and checks; what becomes of it is control's business.

use std::path::Path;

use crate::config::{Config, SECRET_FILE_BYTES_MAX, Secret, SecretSource, WhatsApp, secret_of_file};
use crate::control;
use crate::driver::files;
use crate::whatsapp::numbers::{self, Entry};
use crate::whatsapp::{CallPolicy, Number, Settings};

/// What logs and metrics call the only number.
const ONLY_NAME: &str = "default";

/// Reads all that is in files, and checks it together with what is not; `None` where WhatsApp is not configured. The error
/// names the setting and the file, and says what to do.
pub(super) fn load(config: &Config) -> Result<Option<Settings>, String> {
    let Some(whatsapp) = &config.whatsapp else { return Ok(None) };
    let sources = &config.secret_sources;
    let app_secret =
        again(WhatsApp::APP_SECRET, &sources.whatsapp_app_secret, whatsapp.app_secret.as_ref(), "the bare secret")?;
    let access_token = again(
        WhatsApp::ACCESS_TOKEN,
        &sources.whatsapp_access_token,
        whatsapp.access_token.as_ref(),
        "the bare token",
    )?;
    let verify_token =
        again(WhatsApp::VERIFY_TOKEN, &sources.whatsapp_verify_token, Some(&whatsapp.verify_token), "the bare token")?
            .ok_or_else(|| format!("{} is gone", WhatsApp::VERIFY_TOKEN))?;
    let own = Own { app_secret, access_token };
    let (settings, named) = match (&whatsapp.numbers_file, &whatsapp.phone_number_id) {
        (Some(path), _) => {
            let named = format!("{} names {}", WhatsApp::NUMBERS, path.display());
            (own.several(path, verify_token).map_err(|problem| format!("{named}, {problem}"))?, named)
        }
        (None, Some(id)) => (own.only(id, verify_token)?, "WHATSAPP_PHONE_NUMBER_ID".to_owned()),
        (None, None) => return Ok(None),
    };
    control::check_numbers(&settings, config).map_err(|problem| format!("{named}: {problem}"))?;
    Ok(Some(settings))
}

/// Whether any of it is in files, which can be read again.
pub(super) fn is_in_files(config: &Config) -> bool {
    let sources = &config.secret_sources;
    let secrets = [&sources.whatsapp_app_secret, &sources.whatsapp_access_token, &sources.whatsapp_verify_token];
    config
        .whatsapp
        .as_ref()
        .is_some_and(|whatsapp| whatsapp.numbers_file.is_some() || secrets.iter().any(|source| source.file().is_some()))
}

/// A secret as it is now: of its file, where it has one.
fn again(setting: &str, source: &SecretSource, known: Option<&Secret>, what: &str) -> Result<Option<Secret>, String> {
    let Some(path) = source.file() else { return Ok(known.cloned()) };
    secret(path, what).map(Some).map_err(|problem| format!("{setting} is in {}, which {problem}", path.display()))
}

fn secret(path: &Path, what: &str) -> Result<Secret, String> {
    let bytes = files::read(path, SECRET_FILE_BYTES_MAX)?.ok_or_else(|| "does not exist".to_owned())?;
    secret_of_file(&bytes, what)
}

/// Secrets of numbers that name none.
struct Own {
    app_secret: Option<Secret>,
    access_token: Option<Secret>,
}

impl Own {
    fn only(self, id: &str, verify_token: Secret) -> Result<Settings, String> {
        let missing = |setting: &str| format!("{setting} is needed for WHATSAPP_PHONE_NUMBER_ID");
        let number = Number {
            phone_number_id: id.to_owned(),
            name: ONLY_NAME.to_owned(),
            access_token: self.access_token.ok_or_else(|| missing(WhatsApp::ACCESS_TOKEN))?,
            calls: CallPolicy::Answer,
            config: "{}".to_owned(),
        };
        let app_secret = self.app_secret.ok_or_else(|| missing(WhatsApp::APP_SECRET))?;
        Ok(Settings { numbers: vec![number], app_secrets: vec![app_secret], verify_token })
    }

    /// The numbers of a file. The error is a phrase that goes behind the file's name.
    fn several(&self, path: &Path, verify_token: Secret) -> Result<Settings, String> {
        let bytes = files::read(path, numbers::FILE_BYTES_MAX).map_err(|problem| format!("which {problem}"))?;
        let bytes = bytes.ok_or("which does not exist")?;
        let text = std::str::from_utf8(&bytes).map_err(|_| "which is not text")?;
        let entries = numbers::parse(text).map_err(|problem| format!("which {problem}"))?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let mut settings = Settings { numbers: Vec::new(), app_secrets: Vec::new(), verify_token };
        for entry in entries {
            let app_secret = self.secret_of(&entry, folder, &APP_SECRET)?;
            if !settings.app_secrets.contains(&app_secret) {
                settings.app_secrets.push(app_secret);
            }
            let access_token = self.secret_of(&entry, folder, &ACCESS_TOKEN)?;
            let Entry { phone_number_id, name, calls, config, access_token_file: _, app_secret_file: _ } = entry;
            settings.numbers.push(Number { phone_number_id, name, access_token, calls, config });
        }
        Ok(settings)
    }

    /// A secret of a number: in the file that it names, seen from the folder of the numbers' file, or that of the process.
    fn secret_of(&self, entry: &Entry, folder: &Path, kind: &Kind) -> Result<Secret, String> {
        let name = &entry.name;
        match ((kind.file)(entry), (kind.own)(self)) {
            (Some(path), _) => {
                let path = folder.join(path);
                let named = format!("where the number {name} has {} {}", kind.key, path.display());
                secret(&path, kind.what).map_err(|problem| format!("{named}, which {problem}"))
            }
            (None, Some(own)) => Ok(own.clone()),
            (None, None) => {
                Err(format!("where the number {name} has no {}, and {} is not set", kind.key, kind.setting))
            }
        }
    }
}

/// One of the two secrets that a number may have of its own.
struct Kind {
    /// Its key in the file of numbers.
    key: &'static str,
    setting: &'static str,
    what: &'static str,
    file: fn(&Entry) -> Option<&Path>,
    own: fn(&Own) -> Option<&Secret>,
}

const APP_SECRET: Kind = Kind {
    key: "app_secret_file",
    setting: WhatsApp::APP_SECRET,
    what: "the bare secret",
    file: |entry| entry.app_secret_file.as_deref(),
    own: |own| own.app_secret.as_ref(),
};

const ACCESS_TOKEN: Kind = Kind {
    key: "access_token_file",
    setting: WhatsApp::ACCESS_TOKEN,
    what: "the bare token",
    file: |entry| entry.access_token_file.as_deref(),
    own: |own| own.access_token.as_ref(),
};
