//! Secrets on a command line: those of the key broker, and what looks like one where the host reads it.

use coffer_spec::{OnChange, SecretTarget, SecretWanted};

use super::{signal_number, told};

/// How `--secret` is written.
pub const SECRET_FILE: &str =
    "NAME=kbs:///repository/type/tag[,mode=0440][,uid=N][,gid=N][,signal=NAME or ,run=PROGRAM ARGUMENTS]";
/// How `--secret-env` is written.
pub const SECRET_ENV: &str = "NAME=kbs:///repository/type/tag";

/// `NAME=kbs:///repository/type/tag`, then what is wished for behind commas. `run=` takes the rest of the text, its words
/// parted as a shell parts them; no shell reads them.
///
/// # Errors
/// What is wrong with it.
pub fn secret_file(text: &str) -> Result<SecretWanted, String> {
    let (name, rest) = name_and_path(text)?;
    let (path, mut wishes) = rest.split_once(',').map_or((rest, None), |(path, wishes)| (path, Some(wishes)));
    let to = SecretTarget::File(name.parse().map_err(told)?);
    let mut wanted = SecretWanted::new(path.parse().map_err(told)?, to);
    let mut seen = Vec::new();
    while let Some(text) = wishes {
        let (wish, rest) = match text.split_once(',') {
            Some((wish, rest)) if !text.starts_with("run=") => (wish, Some(rest)),
            _ => (text, None),
        };
        wishes = rest;
        let (key, value) = wish.split_once('=').ok_or_else(|| format!("{wish:?} is nothing it can do"))?;
        match key {
            "mode" => wanted.mode = value.parse().map_err(told)?,
            "uid" => wanted.uid = Some(number(key, value)?),
            "gid" => wanted.gid = Some(number(key, value)?),
            "signal" => {
                let signal = signal_number(value).ok_or_else(|| format!("{value:?} is no signal"))?;
                wanted.changed = Some(OnChange::Signal(signal));
            }
            "run" => {
                let words = shlex::split(value).ok_or_else(|| format!("a quote in {value:?} has no end"))?;
                wanted.changed = Some(OnChange::Command(words));
            }
            _ => return Err(format!("{wish:?} is nothing it can do")),
        }
        // Only one thing follows a new version.
        seen.push(if key == "run" { "signal" } else { key });
    }
    let twice = seen.iter().enumerate().find(|(at, key)| seen[..*at].contains(key));
    match twice {
        Some((_, &"signal")) => Err("more than one signal or program".into()),
        Some((_, key)) => Err(format!("{key} stands there twice")),
        None => Ok(wanted),
    }
}

/// `NAME=kbs:///repository/type/tag`, for the environment.
///
/// # Errors
/// What is wrong with it.
pub fn secret_env(text: &str) -> Result<SecretWanted, String> {
    let (name, path) = name_and_path(text)?;
    let (path, to) = (path.parse().map_err(told)?, SecretTarget::Env(name.parse().map_err(told)?));
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if !name.chars().all(plain) || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(format!("{name:?} is no name of a variable: a letter or _, then letters, digits or _"));
    }
    if ["HOME", "HOSTNAME", "PATH"].contains(&name) {
        return Err(format!("{name} is set by the guest itself, from what is measured"));
    }
    Ok(SecretWanted::new(path, to))
}

fn name_and_path(text: &str) -> Result<(&str, &str), String> {
    // Until 0.2 the path came first.
    match text.split_once('=') {
        Some((path, name)) if path.starts_with("kbs:///") => {
            let (flag, name) = name.strip_prefix("env:").map_or(("--secret", name), |name| ("--secret-env", name));
            Err(format!("the name stands first: {flag} {name}={path}"))
        }
        Some(parts) => Ok(parts),
        None => Err("there is no = in it".into()),
    }
}

fn number(key: &str, value: &str) -> Result<u32, String> {
    value.parse().map_err(|_| format!("{key}={value}: expected a number"))
}

/// Whether an environment variable, NAME=value, looks like a secret: by the words of its name, or by what its value is known to
/// be the beginning of. A guess, for a warning: nothing rests on it.
pub fn looks_like_a_secret(entry: &str) -> bool {
    let Some((name, value)) = entry.split_once('=') else { return false };
    // A file's name is what should stand there, and a switch tells nobody anything.
    !value.is_empty()
        && !value.starts_with('/')
        && !is_a_switch(value)
        && (has_a_secrets_name(name) || has_a_secrets_form(value))
}

fn is_a_switch(value: &str) -> bool {
    const SWITCHES: [&str; 10] = ["0", "1", "true", "false", "yes", "no", "on", "off", "none", "enabled"];
    SWITCHES.iter().any(|switch| value.eq_ignore_ascii_case(switch))
}

fn has_a_secrets_name(name: &str) -> bool {
    const ALONE: [&str; 6] = ["SECRETS", "CREDENTIAL", "CREDENTIALS", "PASS", "PAT", "DSN"];
    // Also where nothing parts them from what stands before: PGPASSWORD, clientSecret.
    const ENDS: [&str; 5] = ["PASSWORD", "PASSWD", "PASSPHRASE", "SECRET", "TOKEN"];
    // Behind others' names, and not before them: AUTH_METHOD, COOKIE_DOMAIN.
    const LAST: [&str; 2] = ["AUTH", "COOKIE"];
    const BEFORE_KEY: [&str; 9] =
        ["API", "PRIVATE", "ACCESS", "SECRET", "SIGNING", "ENCRYPTION", "AUTH", "MASTER", "ACCOUNT"];
    let upper = name.to_ascii_uppercase();
    let words: Vec<&str> = upper.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    // Of these there is a harmless meaning: the current folder, an address, how long.
    let about = ["URL", "URI", "FILE", "PATH", "TTL", "LENGTH", "NAME", "ID", "EXPIRY"];
    if words.last().is_some_and(|last| about.contains(last)) {
        return false;
    }
    let is_key = |word: &str| word.strip_suffix("KEY").is_some_and(|before| BEFORE_KEY.contains(&before));
    words.iter().any(|word| ALONE.contains(word) || is_key(word) || ENDS.iter().any(|end| word.ends_with(end)))
        || words.last().is_some_and(|last| LAST.contains(last))
        || words.windows(2).any(|pair| pair[1] == "KEY" && BEFORE_KEY.contains(&pair[0]))
        || words.len() > 1 && words.last() == Some(&"PWD") && upper != "OLD_PWD"
}

fn has_a_secrets_form(value: &str) -> bool {
    const BEGINNINGS: [&str; 12] = [
        "ghp_",
        "gho_",
        "ghs_",
        "github_pat_",
        "glpat-",
        "AKIA",
        "ASIA",
        "xoxb-",
        "xoxp-",
        "sk_live_",
        "hvs.",
        "AGE-SECRET-KEY-",
    ];
    let has_password = |value: &str| {
        let authority = value.split_once("://").and_then(|(_, rest)| rest.split('/').next()).unwrap_or_default();
        authority.rsplit_once('@').is_some_and(|(who, _)| who.split_once(':').is_some_and(|(_, it)| !it.is_empty()))
    };
    BEGINNINGS.iter().any(|beginning| value.starts_with(beginning))
        || value.starts_with("-----BEGIN ") && value.contains("PRIVATE KEY-----")
        || value.starts_with("eyJ") && value.matches('.').count() == 2
        || has_password(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_of_the_broker_goes_to_a_file_with_what_is_wished_for() {
        let wanted = secret_file("cert=kbs:///web/tls/key,mode=0440,uid=101,gid=7,signal=HUP").unwrap();
        assert_eq!(
            (wanted.from.as_str(), wanted.to),
            ("kbs:///web/tls/key", SecretTarget::File("cert".parse().unwrap()))
        );
        assert_eq!((wanted.mode.bits(), wanted.uid, wanted.gid), (0o440, Some(101), Some(7)));
        assert_eq!(wanted.changed, Some(OnChange::Signal(1)));
        let plain = secret_file("cert=kbs:///web/tls/key").unwrap();
        assert_eq!((plain.mode.bits(), plain.uid, plain.changed), (0o400, None, None));
        let runs = secret_file("cert=kbs:///web/tls/key,run=nginx -s  reload,now").unwrap();
        assert_eq!(runs.changed, Some(OnChange::Command(vec!["nginx".into(), "-s".into(), "reload,now".into()])));
        let quoted = secret_file("cert=kbs:///web/tls/key,run=sh -c 'a, \"b\"; c' d").unwrap();
        let words = ["sh", "-c", "a, \"b\"; c", "d"].map(str::to_owned);
        assert_eq!(quoted.changed, Some(OnChange::Command(words.into())));
        assert_eq!(secret_env("KEY=kbs:///a/b/c").unwrap().to, SecretTarget::Env("KEY".parse().unwrap()));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_what_is_wrong() {
        for (text, why) in [
            ("x", "no ="),
            ("x=", "no secret path"),
            ("=kbs:///a/b/c", "no name"),
            ("x=kbs:///a/b", "no secret path"),
            ("kbs:///a/b/c=x", "the name stands first: --secret x=kbs:///a/b/c"),
            ("kbs:///a/b/c=env:X", "the name stands first: --secret-env X=kbs:///a/b/c"),
            ("x=kbs:///a/b/c,", "is nothing it can do"),
            ("x=kbs:///a/b/c,mode=9", "mode \"9\""),
            ("x=kbs:///a/b/c,mode=0400,mode=0440", "mode stands there twice"),
            ("x=kbs:///a/b/c,uid=root", "expected a number"),
            ("x=kbs:///a/b/c,signal=NOSUCH", "no signal"),
            ("x=kbs:///a/b/c,signal=HUP,run=a b", "more than one"),
            ("x=kbs:///a/b/c,run=sh -c 'a b", "has no end"),
        ] {
            let told = secret_file(text).unwrap_err();
            assert!(told.contains(why), "{text}: {told}");
        }
        assert!(secret_env("x=kbs:///a/b/c,mode=0440").is_err());
        for (name, why) in [("1A", "a letter or _"), ("A-B", "a letter or _"), ("PATH", "by the guest itself")] {
            let told = secret_env(&format!("{name}=kbs:///a/b/c")).unwrap_err();
            assert!(told.contains(why) && !told.contains("secrets.to"), "{name}: {told}");
        }
        assert!(secret_env("_A1=kbs:///a/b/c").is_ok());
    }

    #[test]
    fn what_looks_like_a_secret_is_noticed_and_what_names_a_file_is_not() {
        for yes in [
            "DB_PASSWORD=x",
            "password=x",
            "MYSQL_PWD=x",
            "GITHUB_TOKEN=x",
            "aws_secret_access_key=x",
            "API_KEY=x",
            "stripe.api.key=x",
            "X=ghp_0123456789",
            "KEY=-----BEGIN PRIVATE KEY-----\nMC4",
            "A=postgres://u:p@db/x",
            "JWT=eyJhbGciOi.eyJzdWIi.c2ln",
            "PGPASSWORD=x",
            "SECRETKEY=x",
            "TS_AUTHKEY=x",
            "clientSecret=x",
            "AUTH=user:x",
            "REDIS_AUTH=x",
            "ERLANG_COOKIE=x",
        ] {
            assert!(looks_like_a_secret(yes), "{yes}");
        }
        for no in [
            "PATH=/bin",
            "PWD=x",
            "KEY=value",
            "DB_PASSWORD_FILE=x",
            "DB_PASSWORD=/run/secrets/db",
            "DB_PASSWORD=",
            "TOKEN_URL=https://a/b",
            "COMPASS=north",
            "MONKEY=1",
            "PUBLIC_KEY=abc",
            "A=https://host/x@y:1",
            "SECRET",
            "AWS_ACCESS_KEY_ID=x",
            "AUTHOR=x",
            "AUTH_METHOD=ldap",
            "BASIC_AUTH=on",
            "MYSQL_ALLOW_EMPTY_PASSWORD=yes",
            "COOKIE_DOMAIN=example.org",
            "TOKENIZER=x",
            "TURKEY=x",
        ] {
            assert!(!looks_like_a_secret(no), "{no}");
        }
    }
}
