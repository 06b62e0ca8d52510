//! Who the workload runs as: `uid[:gid]` or names, looked up in the image's own `/etc/passwd` and `/etc/group`.
//!
//! Source: OCI image specification, `config.User`; passwd(5), group(5).

use serde::{Deserialize, Serialize};

/// Why a user cannot be resolved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UserError {
    /// Neither a number nor in the image's passwd.
    #[error("user {0} is not in the image's /etc/passwd")]
    User(String),
    /// Neither a number nor in the image's group file.
    #[error("group {0} is not in the image's /etc/group")]
    Group(String),
    /// The same of a further group.
    #[error("further group {0} is not in the image's /etc/group")]
    Further(String),
}

/// A resolved user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids, sorted, without the primary one.
    pub groups: Vec<u32>,
    /// Home folder, `/` where none is known.
    pub home: String,
}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// Resolves `user` (empty means root) against the contents of the image's two files. Malformed lines count as absent.
///
/// # Errors
/// [`UserError`] if a name is not there; a number needs no entry.
pub fn resolve(user: &str, more: &[String], passwd: &str, group: &str) -> Result<Identity, UserError> {
    let (user, wanted_group) = match user.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (user, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let number = id(user);
    let account = accounts(passwd).find(|account| match number {
        Some(uid) => account.uid == uid,
        None => account.name == user,
    });
    let uid = account.as_ref().map(|account| account.uid).or(number).ok_or_else(|| UserError::User(user.into()))?;
    let find = |name: &str| {
        let named = || groups(group).find(|entry| entry.0 == name).map(|entry| entry.1);
        id(name).or_else(named)
    };
    let gid = match wanted_group {
        Some(name) => find(name).ok_or_else(|| UserError::Group(name.into()))?,
        None => account.as_ref().map_or(0, |account| account.gid),
    };
    let name = account.as_ref().map(|account| account.name);
    let mut supplementary: Vec<u32> = groups(group)
        .filter(|entry| name.is_some_and(|name| entry.2.split(',').any(|member| member == name)))
        .map(|entry| entry.1)
        .filter(|other| *other != gid && wanted_group.is_none())
        .collect();
    for name in more {
        supplementary.push(find(name).ok_or_else(|| UserError::Further(name.into()))?);
    }
    supplementary.sort_unstable();
    supplementary.dedup();
    let home = account.map(|account| account.home).filter(|home| home.starts_with('/')).unwrap_or("/");
    Ok(Identity { uid, gid, groups: supplementary, home: home.into() })
}

/// u32::MAX means "leave as it is" to the kernel, so it is no id.
fn id(text: &str) -> Option<u32> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok().filter(|id| *id != u32::MAX) } else { None }
}

fn accounts(passwd: &str) -> impl Iterator<Item = Account<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _password) = (fields.next()?, fields.next()?);
        let (uid, gid) = (id(fields.next()?)?, id(fields.next()?)?);
        let home = fields.nth(1).unwrap_or("/");
        Some(Account { name, uid, gid, home })
    })
}

fn groups(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _password) = (fields.next()?, fields.next()?);
        Some((name, id(fields.next()?)?, fields.next().unwrap_or("")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\napp:x:1000:1001:App:/home/app:/bin/sh\n";
    const GROUP: &str = "root:x:0:\napp:x:1001:\nvideo:x:44:other,app\nmail:x:8:app\n";

    fn of(user: &str) -> Result<Identity, UserError> {
        resolve(user, &[], PASSWD, GROUP)
    }

    #[test]
    fn names_and_numbers_find_the_same_account() {
        let app = Identity { uid: 1000, gid: 1001, groups: vec![8, 44], home: "/home/app".into() };
        assert_eq!(of("app"), Ok(app.clone()));
        assert_eq!(of("1000"), Ok(app));
        assert_eq!(of("").unwrap(), Identity { uid: 0, gid: 0, groups: vec![], home: "/root".into() });
    }

    #[test]
    fn a_given_group_replaces_all_groups() {
        let identity = of("app:mail").unwrap();
        assert_eq!((identity.gid, identity.groups), (8, vec![]));
        assert_eq!(of("app:77").unwrap().gid, 77);
    }

    #[test]
    fn further_groups_come_on_top_and_must_be_there() {
        let of = |user: &str, more: &[&str]| {
            resolve(user, &more.iter().map(ToString::to_string).collect::<Vec<_>>(), PASSWD, GROUP)
        };
        assert_eq!(of("app", &["root", "77", "mail"]).unwrap().groups, [0, 8, 44, 77]);
        assert_eq!(of("app:mail", &["video"]).unwrap().groups, [44], "a given group replaces those of the image alone");
        assert_eq!(of("app", &["ghosts"]), Err(UserError::Further("ghosts".into())));
        assert!(of("app", &["4294967295"]).is_err());
    }

    #[test]
    fn numbers_need_no_entry_and_names_do() {
        let identity = of("4242").unwrap();
        assert_eq!((identity.uid, identity.gid, identity.home.as_str()), (4242, 0, "/"));
        assert_eq!(of("ghost"), Err(UserError::User("ghost".into())));
        assert_eq!(of("app:ghosts"), Err(UserError::Group("ghosts".into())));
        assert!(of("4294967295").is_err(), "minus one would leave the agent's user in place");
        assert!(of("-1").is_err());
    }
}
