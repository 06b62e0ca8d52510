//! Commands about boxes, in Docker's words.

pub mod attend;
pub mod cp;
pub mod create;
pub mod exec;
pub mod flags;
pub mod hold;
pub mod inspect;
pub mod live;
pub mod logs;
pub mod network;
pub mod new_box;
pub mod pause;
pub mod peers;
pub mod port;
pub mod ps;
pub mod restart;
pub mod rm;
pub mod run;
pub mod start;
pub mod stop;
pub mod supervise;
pub mod to_stop;
pub mod top;
pub mod unpause;
mod unproven;

use crate::row::Group;

/// What runs images.
pub const GROUP: Group = Group {
    heading: "Boxes",
    commands: &[
        command!("run": run, Docker),
        command!("create": create, Docker),
        command!("start": start, Docker),
        command!("stop": stop),
        command!("restart": restart, Docker),
        command!("pause": pause),
        command!("unpause": unpause),
        command!("ps": ps),
        command!("port": port),
        command!("logs": logs),
        command!("exec": exec, Docker),
        command!("cp": cp),
        command!("top": top),
        command!("rm": rm),
        command!("inspect": inspect),
        command!("supervise": supervise),
        command!("hold": hold),
    ],
};
