//! A key broker as its admin commands see it: whom to ask, and how its answers are said.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use coffer_kbs_client::{AdminClient, AdminProfile, ClientError, ProfileError};
use coffer_rim::input;
use coffer_verifier::{P384PublicKey, abi::SpkiDigest};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::context::Context;
use crate::error::{Class, Classify as _, CliError};
use crate::table;

/// A broker, by its admin profile or its local socket. Nothing is connected yet.
pub struct Broker<'a> {
    way: Way,
    context: &'a Context,
}

/// How it is reached.
enum Way {
    Profile { path: PathBuf, profile: AdminProfile },
    Socket(PathBuf),
}

impl<'a> Broker<'a> {
    /// From what the flags and the environment say.
    ///
    /// # Errors
    /// Class `usage` with neither profile nor socket, `config` if the profile cannot be read.
    pub fn new(
        profile: Option<&Path>,
        address: Option<&str>,
        socket: Option<&Path>,
        context: &'a Context,
    ) -> Result<Self, CliError> {
        if let Some(socket) = socket {
            return Ok(Self { way: Way::Socket(socket.to_owned()), context });
        }
        let path = profile.or(context.kbs_profile.as_deref()).ok_or_else(|| {
            CliError::new(Class::Usage, "no admin profile given")
                .hint("use --profile FILE or COFFER_KBS_PROFILE; `coffer-kbs init` writes STATE/admin.toml")
        })?;
        let mut profile = AdminProfile::read(path).map_err(|error| {
            let class = match &error {
                ProfileError::File { source, .. } => Class::of_file(source),
                _ => Class::Config,
            };
            CliError::caused(class, &error).hint(error.hint())
        })?;
        if let Some(address) = address.or(context.kbs_address.as_deref()) {
            address.clone_into(&mut profile.address);
        }
        Ok(Self { way: Way::Profile { path: path.to_owned(), profile }, context })
    }

    /// Connects and asks.
    ///
    /// # Errors
    /// Class `unreachable`, `refused` by the broker, or `config`.
    pub fn ask<T>(&self, ask: impl AsyncFnOnce(&AdminClient) -> Result<T, ClientError>) -> Result<T, CliError> {
        self.ask_or("it may have been done all the same: look before you ask again", ask)
    }

    /// [`Self::ask`]; `lost` is the hint where the connection is lost after the broker was asked.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn ask_or<T>(
        &self,
        lost: &str,
        ask: impl AsyncFnOnce(&AdminClient) -> Result<T, ClientError>,
    ) -> Result<T, CliError> {
        self.context.runtime()?.block_on(async {
            let client = match &self.way {
                Way::Profile { profile, .. } => AdminClient::connect(profile).await.map_err(|error| failure(&error))?,
                Way::Socket(path) => AdminClient::connect_local(path).await.map_err(|error| {
                    CliError::caused(Class::Unreachable, &error).hint(
                        "`[admin_socket]` in the broker's config.toml makes it; root and the broker's own user may use it",
                    )
                })?,
            };
            ask(&client).await.map_err(|error| match error {
                ClientError::Unreachable { .. } | ClientError::Slow { .. } => {
                    CliError::caused(Class::Unreachable, &error).hint(lost.to_owned())
                }
                _ => self.whose(failure(&error)),
            })
        })
    }

    /// A local socket has a role, and no key.
    fn whose(&self, failure: CliError) -> CliError {
        match self.way {
            Way::Profile { .. } => failure,
            Way::Socket(_) => of_the_socket(failure),
        }
    }

    /// The operator's own profile, and where it lies.
    ///
    /// # Errors
    /// Class `usage` where the broker is reached by its socket.
    pub fn profile(&self) -> Result<(&AdminProfile, &Path), CliError> {
        match &self.way {
            Way::Profile { path, profile } => Ok((profile, path)),
            Way::Socket(_) => Err(CliError::new(Class::Usage, "a local socket has no profile")
                .hint("give a new operator's key with --key, or use --profile FILE in place of --admin-socket")),
        }
    }

    /// Finds out whether the broker shows one of these keys.
    ///
    /// # Errors
    /// As [`Self::ask`]; class `refused` where it shows another.
    pub fn reach(&self, pins: &[SpkiDigest]) -> Result<(), CliError> {
        let (profile, path) = self.profile()?;
        let kept =
            AdminProfile::read(path).map_err(|error| CliError::caused(Class::Config, &error).hint(error.hint()))?;
        let other = AdminProfile { address: profile.address.clone(), pins: pins.to_vec(), ..kept };
        let reached = self.context.runtime()?.block_on(AdminClient::connect(&other));
        reached.map(drop).map_err(|error| failure(&error))
    }

    /// Whether a script asks.
    pub fn json(&self) -> bool {
        self.context.json
    }

    /// Says what was done: `value` to scripts, `text` to people.
    pub fn say(&self, value: &Value, text: impl FnOnce() -> String) {
        self.say_each(value, || [text()]);
    }

    /// [`Self::say`], with several lines for people.
    pub fn say_each<T: IntoIterator<Item = String>>(&self, value: &Value, lines: impl FnOnce() -> T) {
        if self.context.json {
            println!("{value}");
            return;
        }
        for line in lines() {
            println!("{}", coffer_rim::foreign(&line));
        }
    }

    /// Says what there is: all of each row to scripts, these columns to people, each by its key or by `key=HEADING`.
    pub fn list(&self, columns: &[&str], rows: &[Value]) {
        self.list_as(columns, rows, |_, _| None);
    }

    /// [`Self::list`] with words for some cells, for people.
    pub fn list_as(&self, columns: &[&str], rows: &[Value], word: impl Fn(&str, &Value) -> Option<String>) {
        if self.context.json {
            println!("{}", Value::from(rows));
            return;
        }
        let (keys, heading): (Vec<_>, Vec<_>) = columns.iter().map(|column| titled(column)).unzip();
        let heading: Vec<_> = heading.iter().map(String::as_str).collect();
        let cell = |row: &Value, column: &str| {
            word(column, &row[column]).unwrap_or_else(|| match &row[column] {
                Value::String(text) => text.clone(),
                Value::Null => "-".to_owned(),
                Value::Array(words) => joined(words),
                other => other.to_string(),
            })
        };
        let cells = |row| keys.iter().map(|key| cell(row, key)).collect();
        table::print(&heading, &rows.iter().map(cells).collect::<Vec<_>>());
    }
}

/// Key and heading of a column.
fn titled(column: &str) -> (&str, String) {
    let (key, heading) = column.split_once('=').unwrap_or((column, column));
    (key, heading.to_uppercase().replace('_', " "))
}

/// Words of a list in one cell.
fn joined(words: &[Value]) -> String {
    let words = words.iter().map(|word| word.as_str().map_or_else(|| word.to_string(), str::to_owned));
    words.collect::<Vec<_>>().join(",")
}

impl Broker<'_> {
    /// [`Self::list`], and what is damaged behind it: that hides nothing, and the exit code says so.
    pub fn list_all(&self, columns: &[&str], rows: &[Value], damaged: &[String]) -> ExitCode {
        self.list_all_as(columns, rows, damaged, |_, _| None)
    }

    /// [`Self::list_all`] with words for some cells, for people.
    pub fn list_all_as(
        &self,
        columns: &[&str],
        rows: &[Value],
        damaged: &[String],
        word: impl Fn(&str, &Value) -> Option<String>,
    ) -> ExitCode {
        let of = |words: &String| CliError::new(Class::NotAuthentic, coffer_rim::foreign(words));
        if self.context.json {
            let lost = damaged.iter().map(|words| serde_json::json!({ "error": of(words).json()["error"] }));
            println!("{}", rows.iter().cloned().chain(lost).collect::<Value>());
        } else {
            self.list_as(columns, rows, word);
            for words in damaged {
                crate::error::print(&of(words), false);
            }
        }
        end(damaged)
    }
}

/// How a command ends that has shown what there is.
pub fn end(damaged: &[String]) -> ExitCode {
    if damaged.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(Class::NotAuthentic.code()) }
}

fn failure(error: &ClientError) -> CliError {
    let class = match error {
        ClientError::Unreachable { .. }
        | ClientError::Slow { .. }
        | ClientError::Undecided { .. }
        | ClientError::TooOften => Class::Unreachable,
        ClientError::Refused { .. } | ClientError::RoleMissing { .. } | ClientError::PinMismatch { .. } => {
            Class::Refused
        }
        ClientError::NotAuthentic { .. } => Class::NotAuthentic,
        _ => Class::Config,
    };
    let failure = CliError::caused(class, error);
    if matches!(error, ClientError::Refused { code, .. } if code == "key-not-admitted") {
        return failure.hint("the broker lists this profile's key neither under [[admins]] of config.toml nor in `coffer kbs admin list`; if it was taken away while it asked, that may have been done");
    }
    // The last is the least.
    if let ClientError::RoleMissing { enough, held, .. } = error
        && let Some(role) = enough.last()
    {
        if let Some((role, tenant)) = elsewhere(enough, held) {
            let (role, tenant) = (coffer_rim::foreign(role), coffer_rim::foreign(tenant));
            return failure.hint(format!("{role} is held for tenant {tenant} alone: --tenant {tenant} where the command has it; what is about all tenants takes a role for all"));
        }
        let hint = format!(
            "ask somebody who has one of them, or an owner of all for it: `coffer kbs admin add NAME --role {} --key …` \
             (--role for each that the key shall have)",
            coffer_rim::foreign(role)
        );
        return failure.hint(hint);
    }
    match error.hint() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

const SOCKETS: &str =
    "`[admin_socket]` in the broker's config.toml says which role the socket has, and of which tenant";

/// No operator can give a socket a role.
fn of_the_socket(failure: CliError) -> CliError {
    let CliError { message, hint, .. } = failure;
    let hint = hint.map(|hint| if hint.contains("coffer kbs admin add") { SOCKETS.to_owned() } else { hint });
    CliError { message: message.replace("this key has", "the socket has"), hint, ..failure }
}

/// A role that would be enough and is held, for another tenant than was asked about.
fn elsewhere<'a>(enough: &'a [String], held: &'a str) -> Option<(&'a str, &'a str)> {
    let word = |grant: &'a str| grant.split_once('@').map_or(grant, |(role, _)| role);
    let held = held.split(", ").filter_map(|grant| grant.split_once('@'));
    held.into_iter().find(|(role, _)| enough.iter().any(|one| word(one) == *role))
}

/// What was named is not there; `list` is the command that shows what is.
pub fn not_found(message: String, list: &str) -> CliError {
    CliError::new(Class::NotFound, message).hint(format!("`coffer kbs {list}` shows what is there"))
}

/// A command, about this tenant.
pub fn of_tenant(command: &str, tenant: &str) -> String {
    format!("{command} --tenant {tenant}")
}

/// The bytes of a file, or of standard input for `-`.
///
/// # Errors
/// Class `not-found` where there is none, else `config`.
pub fn read(file: &Path) -> Result<Vec<u8>, CliError> {
    if file.as_os_str() == "-" {
        return input::all(std::io::stdin().lock(), input::DOCUMENT)
            .class_while(Class::Config, "reading standard input");
    }
    input::read(file, input::DOCUMENT).map_err(|error| unread(&error, file))
}

/// A file that a person named, and that cannot be read.
pub fn unread(error: &io::Error, file: &Path) -> CliError {
    CliError::caused(Class::of_file(error), error).while_doing(format_args!("reading {}", file.display()))
}

/// The public key in a file. A secret half is no public key: it belongs where it signs, and not on the way to a broker.
///
/// # Errors
/// Class `not-found`, `usage` for a secret half, `config` for what is no key.
pub fn public_key(file: &Path) -> Result<P384PublicKey, CliError> {
    let text = Zeroizing::new(String::from_utf8_lossy(&Zeroizing::new(read(file)?)).into_owned());
    if text.contains("PRIVATE KEY-----") {
        let (file, public) = (file.display(), format!("{}.pub", file.display()));
        return Err(CliError::new(
            Class::Usage,
            format!("{file} is the secret half of a key: it stays where it signs"),
        )
        .hint(format!("give the public half, which lies beside it as {public}")));
    }
    P384PublicKey::from_pem(&text).map_err(|error| CliError::caused(Class::Config, &error).while_doing(file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_that_is_missing_is_named_with_how_it_is_had() {
        let enough = vec!["owner@acme".to_owned(), "policy-author@acme".to_owned()];
        let missing = ClientError::RoleMissing { id: "ab".into(), enough, held: "operator@acme".into() };
        let failure = failure(&missing);
        assert_eq!(failure.class, Class::Refused);
        for word in ["role-missing (id ab)", "owner@acme or policy-author@acme", "this key has operator@acme"] {
            assert!(failure.message.contains(word), "{word}: {}", failure.message);
        }
        assert!(failure.hint.unwrap().contains("--role policy-author@acme"));
    }

    #[test]
    fn a_socket_has_its_role_from_the_configuration() {
        let missing =
            ClientError::RoleMissing { id: "ab".into(), enough: vec!["owner".into()], held: "operator".into() };
        let failure = of_the_socket(failure(&missing));
        assert!(failure.message.contains("the socket has operator"), "{}", failure.message);
        assert!(failure.hint.unwrap().starts_with("`[admin_socket]`"));
    }

    #[test]
    fn a_role_that_is_held_for_another_tenant_asks_for_its_tenant() {
        let hint = |enough: &[&str], held: &str| {
            let enough = enough.iter().map(|one| (*one).to_owned()).collect();
            failure(&ClientError::RoleMissing { id: "ab".into(), enough, held: held.into() }).hint.unwrap()
        };
        for (enough, held, tenant) in [
            (&["owner@default", "operator@default"][..], "operator@acme", "acme"),
            (&["owner", "auditor"], "policy-author@acme, owner@globex", "globex"),
        ] {
            assert!(hint(enough, held).contains(&format!("--tenant {tenant}")), "{enough:?} {held}");
        }
        for held in ["none", "auditor@acme", "auditor"] {
            assert!(hint(&["owner@default", "operator@default"], held).contains("--role operator@default"), "{held}");
        }
    }

    #[test]
    fn a_column_has_its_key_for_a_heading_or_another_one() {
        assert_eq!(titled("allow_simulated"), ("allow_simulated", "ALLOW SIMULATED".to_owned()));
        assert_eq!(titled("rules_text=rules"), ("rules_text", "RULES".to_owned()));
        assert_eq!(joined(&["a".into(), 1.into()]), "a,1");
    }

    #[test]
    fn a_file_that_is_not_there_is_not_found_and_a_secret_half_is_no_public_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        for error in [read(&path).unwrap_err(), public_key(&path).unwrap_err()] {
            assert_eq!((error.class, error.class.code()), (Class::NotFound, 1), "{error}");
            assert!(error.message.contains("key.pem"), "{error}");
        }
        assert_eq!(read(folder.path()).unwrap_err().class, Class::Config);
        let key = coffer_runtime::signing_key::SigningKey::generate().unwrap();
        let public = key.write_pair(&path, coffer_runtime::signing_key::KeyPurpose::Author).unwrap();
        let error = public_key(&path).unwrap_err();
        assert_eq!(error.class, Class::Usage);
        assert!(error.message.contains("secret half") && error.hint.unwrap().contains("key.pem.pub"));
        assert_eq!(public_key(&public).unwrap(), *key.public());
    }
}
