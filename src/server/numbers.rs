//! Reads the phone numbers of WhatsApp and the secrets that go with them: at the start, on SIGHUP, and for `check-config`.
//!
//! It only reads and checks; what becomes of it is control's business.

use std::path::{Path, PathBuf};

use crate::config::{Config, SECRET_FILE_BYTES_MAX, Secret, SecretSource, WhatsApp, secret_of_file};
use crate::control;
use crate::driver::files;
use crate::whatsapp::numbers::{self, Entry};
use crate::whatsapp::{CallPolicy, Number, Settings};

/// Most different secrets of apps. Each webhook is hashed once with each, whoever sent it: up to 3 MiB, before anything else is
/// known of it. The numbers of one business share an app as a rule, so that one secret is usual and some are enough.
const APP_SECRETS_MAX: usize = 16;

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

/// The files that single numbers name for their secrets; none where the file of numbers cannot be read.
pub(super) fn secret_files(whatsapp: &WhatsApp) -> Vec<PathBuf> {
    let Some(path) = &whatsapp.numbers_file else { return Vec::new() };
    let files = entries(path)
        .unwrap_or_default()
        .into_iter()
        .flat_map(|entry| [entry.access_token_file, entry.app_secret_file]);
    files.flatten().map(|file| beside(path, &file)).collect()
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

/// The numbers of a file. The error is a phrase that goes behind the file's name.
fn entries(path: &Path) -> Result<Vec<Entry>, String> {
    let bytes = files::read(path, numbers::FILE_BYTES_MAX)?.ok_or("does not exist")?;
    numbers::parse(std::str::from_utf8(&bytes).map_err(|_| "is not text")?)
}

/// A file that another one names: beside it, unless the path says where.
fn beside(file: &Path, path: &Path) -> PathBuf {
    file.parent().unwrap_or(Path::new(".")).join(path)
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
        let entries = entries(path).map_err(|problem| format!("which {problem}"))?;
        let app_secrets = self.app_secret.iter().cloned().collect();
        let mut settings = Settings { numbers: Vec::new(), app_secrets, verify_token };
        for entry in entries {
            let app_secret = self.secret_of(&entry, path, &APP_SECRET)?;
            if !settings.app_secrets.contains(&app_secret) {
                if settings.app_secrets.len() == APP_SECRETS_MAX {
                    return Err(too_many_apps(&entry.name));
                }
                settings.app_secrets.push(app_secret);
            }
            let access_token = self.secret_of(&entry, path, &ACCESS_TOKEN)?;
            let Entry { phone_number_id, name, calls, config, access_token_file: _, app_secret_file: _ } = entry;
            settings.numbers.push(Number { phone_number_id, name, access_token, calls, config });
        }
        Ok(settings)
    }

    /// A secret of a number of this file: in the file that it names, or that of the process.
    fn secret_of(&self, entry: &Entry, numbers: &Path, kind: &Kind) -> Result<Secret, String> {
        let name = &entry.name;
        match ((kind.file)(entry), (kind.own)(self)) {
            (Some(path), _) => {
                let path = beside(numbers, path);
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

/// The error is a phrase that goes behind the file's name.
fn too_many_apps(name: &str) -> String {
    format!(
        "where the number {name} has one app secret too many: {APP_SECRETS_MAX} different ones are the most, that of {} \
         included, since each webhook is tried with all of them. Numbers of one app have the same secret; move those of other \
         apps to a bridge of their own",
        WhatsApp::APP_SECRET
    )
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use clap::Parser;

    use super::super::reload::Reloader;
    use super::*;
    use crate::config::Flags;
    use crate::messages::Reloaded;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: Flags,
    }

    /// A folder with files, gone when dropped.
    struct Folder(PathBuf);

    impl Folder {
        fn new(files: &[(&str, &str)]) -> Self {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("voice-media-bridge-numbers-{}-{number}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).unwrap();
            let folder = Self(path);
            for (name, text) in files {
                folder.write(name, text);
            }
            folder
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.0.join(name), text).unwrap();
        }

        fn path(&self, name: &str) -> String {
            self.0.join(name).display().to_string()
        }

        /// A bridge with this file of numbers.
        fn config(&self, words: &[&str]) -> Config {
            let numbers = format!("--whatsapp-numbers={}", self.path("numbers.toml"));
            config(&[&[numbers.as_str(), "--whatsapp-verify-token=verify"], words].concat())
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn config(words: &[&str]) -> Config {
        let line = Line::try_parse_from([&["bridge"], words].concat()).unwrap();
        let read = |path: &Path| files::read(path, SECRET_FILE_BYTES_MAX);
        Config::from_flags_and_files(line.flags, 2, &read).unwrap()
    }

    const TWO: &str = r#"
[config]
voice = "marin"

[[number]]
phone_number_id = "106540352242922"
name = "sales"
access_token_file = "sales.token"
app_secret_file = "sales.secret"
config.instructions = "Be short."

[[number]]
phone_number_id = "106540352242923"
name = "support"
calls = "reject"
"#;

    const OWN: [&str; 2] = ["--whatsapp-access-token=own-token", "--whatsapp-app-secret=own-secret"];

    /// A file of as many numbers, each of which names a file for the secret of its app.
    fn with_secrets(numbers: usize) -> String {
        let number =
            |n| format!("[[number]]\nphone_number_id = \"{n}\"\nname = \"n{n}\"\napp_secret_file = \"{n}.secret\"\n");
        (0..numbers).map(number).collect()
    }

    #[test]
    fn one_number_needs_no_file() {
        let words = ["--whatsapp-phone-number-id=106540352242922", "--whatsapp-verify-token=verify"];
        let settings = load(&config(&[&words, &OWN[..]].concat())).unwrap().unwrap();
        assert_eq!(
            (settings.app_secrets, settings.verify_token),
            (vec![Secret::new("own-secret")], Secret::new("verify"))
        );
        let [number] = &settings.numbers[..] else { panic!("one number") };
        assert_eq!((number.phone_number_id.as_str(), number.calls), ("106540352242922", CallPolicy::Answer));
        assert_eq!(number.access_token, Secret::new("own-token"));
        assert!(load(&config(&[])).unwrap().is_none());
    }

    #[test]
    fn each_number_of_a_file_has_its_own_secrets_or_those_of_the_process() {
        let folder =
            Folder::new(&[("numbers.toml", TWO), ("sales.token", "its-token\n"), ("sales.secret", "its-secret")]);
        let settings = load(&folder.config(&OWN)).unwrap().unwrap();
        let tokens: Vec<_> = settings.numbers.iter().map(|number| number.access_token.expose()).collect();
        assert_eq!(tokens, ["its-token", "own-token"]);
        let secrets: Vec<_> = settings.app_secrets.iter().map(Secret::expose).collect();
        assert_eq!(secrets, ["own-secret", "its-secret"]);
        assert_eq!((settings.numbers[0].name.as_str(), settings.numbers[1].calls), ("sales", CallPolicy::Reject));
        assert!(settings.numbers[0].config.contains("Be short.") && settings.numbers[1].config.contains("marin"));
    }

    #[test]
    fn the_secret_of_the_process_counts_also_where_every_number_has_another() {
        let file = with_secrets(1);
        let folder = Folder::new(&[("numbers.toml", &file), ("0.secret", "its-secret")]);
        let secrets = |words: &[&str]| load(&folder.config(words)).unwrap().unwrap().app_secrets;
        assert_eq!(secrets(&OWN), [Secret::new("own-secret"), Secret::new("its-secret")]);
        assert_eq!(secrets(&OWN[..1]), [Secret::new("its-secret")]);
        folder.write("0.secret", "own-secret");
        assert_eq!(secrets(&OWN), [Secret::new("own-secret")], "the same one");
    }

    #[test]
    fn there_are_as_many_apps_as_a_webhook_may_be_tried_with_and_numbers_may_share_them() {
        let folder = Folder::new(&[("numbers.toml", &with_secrets(40))]);
        let write = |apps: usize| {
            for n in 0..40 {
                folder.write(&format!("{n}.secret"), &format!("canary-{}", n % apps));
            }
        };
        let load = |words: &[&str]| load(&folder.config(words));
        write(APP_SECRETS_MAX);
        let settings = load(&OWN[..1]).unwrap().unwrap();
        assert_eq!((settings.numbers.len(), settings.app_secrets.len()), (40, APP_SECRETS_MAX));
        // That of the process is one more.
        for (apps, words, last) in [(APP_SECRETS_MAX, &OWN[..], "n15"), (APP_SECRETS_MAX + 1, &OWN[..1], "n16")] {
            write(apps);
            let error = load(words).expect_err("one too many was taken");
            let said = ["BRIDGE_WHATSAPP_NUMBERS", "numbers.toml", last, "16", "WHATSAPP_APP_SECRET", "of their own"];
            assert!(said.iter().all(|word| error.contains(word)), "{error}");
            assert!(!error.contains("canary"), "{error}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_the_file_and_the_number_and_no_secret() {
        let secrets = [("sales.token", "canary-token"), ("sales.secret", "canary-secret")];
        let folder = |numbers: &str| Folder::new(&[&[("numbers.toml", numbers)], &secrets[..]].concat());
        for (numbers, words, said) in [
            (TWO, &OWN[1..], &["numbers.toml", "support", "access_token_file", "WHATSAPP_ACCESS_TOKEN"][..]),
            (TWO, &OWN[..1], &["numbers.toml", "support", "app_secret_file", "WHATSAPP_APP_SECRET"]),
            ("[[number]]\nphone_number_id = 7", &OWN, &["BRIDGE_WHATSAPP_NUMBERS", "numbers.toml, which", "line 2"]),
            (
                "[[number]]\nphone_number_id = \"7\"\nname = \"x\"\naccess_token_file = \"gone\"",
                &OWN,
                &["the number x", "access_token_file", "/gone, which does not exist"],
            ),
            (
                "[[number]]\nphone_number_id = \"7\"\nname = \"x\"\nconfig.voice = 7",
                &OWN,
                &["BRIDGE_WHATSAPP_NUMBERS", "numbers.toml", "\"x\"", "voice"],
            ),
        ] {
            let error = load(&folder(numbers).config(words)).expect_err("nonsense was taken");
            assert!(said.iter().all(|word| error.contains(word)), "{said:?} is not in: {error}");
            assert!(!error.contains("canary"), "{error}");
        }
        let gone = folder(TWO);
        let config = gone.config(&OWN);
        fs::remove_file(gone.path("numbers.toml")).unwrap();
        let error = load(&config).unwrap_err();
        assert!(error.contains("numbers.toml, which does not exist"), "{error}");
        gone.write("numbers.toml", TWO);
        gone.write("sales.token", "canary of two words");
        let error = load(&config).unwrap_err();
        assert!(error.contains("sales.token, which contains a space") && !error.contains("canary"), "{error}");
    }

    #[test]
    fn what_is_in_files_is_read_again_and_what_is_not_is_left_alone() {
        let files = [("numbers.toml", TWO), ("sales.token", "one"), ("sales.secret", "s"), ("verify", "old-word")];
        let folder = Folder::new(&files);
        let reread = |config: Config| {
            let Reloaded { whatsapp, .. } = Reloader::of(&Arc::new(config)).read();
            whatsapp
        };
        let config = folder.config(&OWN);
        folder.write("sales.token", "two");
        assert_eq!(reread(config.clone()).unwrap().unwrap().numbers[0].access_token, Secret::new("two"));
        folder.write("numbers.toml", "nonsense");
        let error = reread(config).unwrap().unwrap_err();
        assert!(error.contains("numbers.toml"), "{error}");

        let id = "--whatsapp-phone-number-id=106540352242922";
        let file = format!("--whatsapp-verify-token-file={}", folder.path("verify"));
        let one = super::tests::config(&[&[id, &file], &OWN[..]].concat());
        folder.write("verify", "new-word\n");
        assert_eq!(reread(one).unwrap().unwrap().verify_token, Secret::new("new-word"));
        let plain = super::tests::config(&[&[id, "--whatsapp-verify-token=word"], &OWN[..]].concat());
        assert!(reread(plain).is_none(), "nothing of it is in files");
        assert!(reread(super::tests::config(&[])).is_none());
    }
}
