//! Commands about boxes, in Docker's words.

pub mod create;
pub mod exec;
pub mod flags;
pub mod inspect;
pub mod live;
pub mod logs;
pub mod ps;
pub mod restart;
pub mod rm;
pub mod run;
pub mod start;
pub mod stop;
pub mod supervise;
pub mod volumes;
