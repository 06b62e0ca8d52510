//! Commands about boxes, in Docker's words.

pub mod attach;
pub mod attend;
pub mod card;
pub mod commit;
pub mod cp;
pub mod create;
pub mod diff;
pub mod environment;
mod event;
pub mod events;
pub mod exec;
pub mod export;
pub mod filters;
pub mod flags;
pub mod health;
pub mod hold;
pub mod inspect;
pub mod kill;
pub mod live;
pub mod logs;

pub mod new_box;
pub mod pause;
pub mod peers;
pub mod port;
pub mod prune;
pub mod ps;
pub mod rename;
pub mod restart;
pub mod rights;
pub mod rm;
pub mod run;
pub mod start;
pub mod stats;
pub mod stop;
pub mod supervise;
pub mod to_stop;
pub mod top;
pub mod unpause;
mod unproven;
pub mod update;
pub mod wait;
mod way;

use crate::row::Group;
use crate::{network, system, volume};

/// What runs images.
pub const GROUP: Group = Group {
    heading: "Boxes",
    commands: &[
        command!("run": run, Docker),
        command!("create": create, Docker),
        command!("start": start, Docker),
        command!("stop": stop),
        command!("restart": restart, Docker),
        command!("kill": kill),
        command!("wait": wait),
        command!("pause": pause),
        command!("unpause": unpause),
        command!("ps": ps),
        command!("port": port),
        command!("logs": logs),
        command!("events": events),
        command!("attach": attach),
        command!("exec": exec, Docker),
        command!("cp": cp),
        command!("diff": diff),
        command!("export": export),
        command!("commit": commit),
        command!("top": top),
        command!("stats": stats),
        command!("update": update),
        command!("rename": rename),
        command!("rm": rm),
        command!("prune": prune),
        command!("inspect": inspect),
        noun!("volume": volume),
        noun!("network": network),
        noun!("system": system),
        command!("supervise": supervise),
        command!("hold": hold),
    ],
};
