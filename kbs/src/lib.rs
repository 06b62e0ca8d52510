//! The key broker: releases secrets and sealing keys to guests that meet policy.
#![forbid(unsafe_code)]

pub mod keys;
pub mod path;
pub mod store;
