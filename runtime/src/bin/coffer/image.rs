//! Commands about images. Those that stand by themselves may stand behind the word `image`, too (`docker::nouns`).

pub mod history;
pub mod images;
pub mod import;
pub mod inspect;
pub mod load;
pub mod login;
pub mod logout;
pub mod progress;
pub mod prune;
pub mod pull;
pub mod push;
pub mod rmi;
pub mod room;
pub mod save;
pub mod tag;
pub mod wanted;

use crate::row::{Entry, Group};

/// What boxes are made from.
pub const GROUP: Group = Group {
    heading: "Images",
    commands: &[
        command!("pull": pull),
        command!("push": push),
        command!("images": images),
        command!("rmi": rmi),
        command!("tag": tag),
        command!("history": history),
        command!("save": save),
        command!("load": load),
        command!("import": import),
        command!("login": login),
        command!("logout": logout),
        noun!("image": self),
    ],
};

/// Look at images closely, and make room.
#[derive(Debug, clap::Args)]
#[command(after_help = "`image ls`, `image rm`, `image pull` and so on are `images`, `rmi`, `pull` and so on.

Examples:
  coffer image inspect busybox
  coffer image prune --all --force")]
pub struct Args {}

/// Behind `image`.
pub const COMMANDS: &[Entry] = &[command!("inspect": inspect), command!("prune": prune)];
