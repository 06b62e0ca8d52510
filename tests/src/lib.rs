//! Harness of the end-to-end stories and of `coffer-demo`: real binaries, a real registry, real boots, on loopback.
//!
//! Everything lives in one scratch folder and dies with it: services are children that the kernel kills when we go.
#![forbid(unsafe_code)]

pub mod bare_boot;
pub mod bare_namespaces;
pub mod canary;
pub mod demo;
pub mod forwarded;
pub mod hardware;
pub mod image;
pub mod lab;
pub mod monitors;
pub mod outside;
pub mod page;
pub mod process;
pub mod raw_vsock;
pub mod services;
pub mod sources;
pub mod world;

pub use world::World;
