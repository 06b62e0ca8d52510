//! A key broker as its admin commands see it: whom to ask, and how its answers are said.

use std::path::{Path, PathBuf};

use coffer_kbs_client::{AdminClient, AdminProfile, ClientError};
use coffer_rim::input;
use serde_json::Value;

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
    Profile(AdminProfile),
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
        let mut profile = AdminProfile::read(path)
            .class(Class::Config)
            .map_err(|error| error.hint("`coffer-kbs init --state DIR` writes DIR/admin.toml with mode 0600"))?;
        if let Some(address) = address.or(context.kbs_address.as_deref()) {
            address.clone_into(&mut profile.address);
        }
        Ok(Self { way: Way::Profile(profile), context })
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
                Way::Profile(profile) => AdminClient::connect(profile).await.map_err(|error| failure(&error))?,
                Way::Socket(path) => AdminClient::connect_local(path).await.map_err(|error| {
                    CliError::caused(Class::Unreachable, &error).hint(
                        "`[admin_socket]` in the broker's config.toml makes it; root and the broker's own user may use it",
                    )
                })?,
            };
            ask(&client).await.map_err(|error| match error {
                ClientError::Unreachable { .. } => CliError::caused(Class::Unreachable, &error).hint(lost.to_owned()),
                _ => failure(&error),
            })
        })
    }

    /// The operator's own profile.
    ///
    /// # Errors
    /// Class `usage` where the broker is reached by its socket.
    pub fn profile(&self) -> Result<&AdminProfile, CliError> {
        match &self.way {
            Way::Profile(profile) => Ok(profile),
            Way::Socket(_) => Err(CliError::new(Class::Usage, "a local socket knows no address for a new profile")
                .hint("give the new operator's key with --key, or use --profile FILE in place of --admin-socket")),
        }
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

    /// Says what there is: all of each row to scripts, these columns to people.
    pub fn list(&self, columns: &[&str], rows: &[Value]) {
        self.list_as(columns, rows, |_, _| None);
    }

    /// [`Self::list`] with words for some cells, for people.
    pub fn list_as(&self, columns: &[&str], rows: &[Value], word: impl Fn(&str, &Value) -> Option<String>) {
        if self.context.json {
            println!("{}", Value::from(rows));
            return;
        }
        let heading: Vec<_> = columns.iter().map(|column| column.to_uppercase().replace('_', " ")).collect();
        let heading: Vec<_> = heading.iter().map(String::as_str).collect();
        let cell = |row: &Value, column: &str| {
            word(column, &row[column]).unwrap_or_else(|| match &row[column] {
                Value::String(text) => text.clone(),
                Value::Null => "-".to_owned(),
                other => other.to_string(),
            })
        };
        let cells = |row| columns.iter().map(|column| cell(row, column)).collect();
        table::print(&heading, &rows.iter().map(cells).collect::<Vec<_>>());
    }
}

fn failure(error: &ClientError) -> CliError {
    let class = match error {
        ClientError::Unreachable { .. } => Class::Unreachable,
        ClientError::Refused { .. } | ClientError::RoleMissing { .. } | ClientError::PinMismatch { .. } => {
            Class::Refused
        }
        _ => Class::Config,
    };
    let failure = CliError::caused(class, error);
    if matches!(error, ClientError::Refused { code, .. } if code == "key-not-admitted") {
        return failure.hint("the broker lists this profile's key neither under [[admins]] of config.toml nor in `coffer kbs admin list`; if it was taken away while it asked, that may have been done");
    }
    // The last is the least.
    if let ClientError::RoleMissing { enough, .. } = error
        && let Some(role) = enough.last()
    {
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

/// What was named is not there; `list` is the command that shows what is.
pub fn not_found(message: String, list: &str) -> CliError {
    CliError::new(Class::NotFound, message).hint(format!("`coffer kbs {list}` shows what is there"))
}

/// The bytes of a file, or of standard input for `-`.
///
/// # Errors
/// Class `config`.
pub fn read(file: &Path) -> Result<Vec<u8>, CliError> {
    if file.as_os_str() == "-" {
        return input::all(std::io::stdin().lock(), input::DOCUMENT)
            .class_while(Class::Config, "reading standard input");
    }
    input::read(file, input::DOCUMENT).class_while(Class::Config, format_args!("reading {}", file.display()))
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
}
