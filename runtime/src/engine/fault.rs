//! What every error of the engine says beyond its text: which class it has, and what the operator can do.
//!
//! Callers turn this into what they speak (an exit code, a gRPC status, a JSON object); the engine itself prints nothing.

use std::error::Error;

use coffer_image::ImageError;
use coffer_rim::Reason;

use super::hint::Hint;
use crate::home::HomeError;
use crate::request::RequestError;
use crate::state::StateError;
use crate::{Class, Failure};

/// An error that knows its class and its remedy.
pub trait Fault: Error + 'static {
    /// What kind it is.
    fn class(&self) -> Class;

    /// What the operator can do about it.
    fn hint(&self) -> Option<Hint>;

    /// Exit code that Docker users expect in place of 125: 126 not executable, 127 not found.
    fn docker_code(&self) -> Option<u8> {
        None
    }

    /// The guest's own word, where the failure is a guest that gave up.
    fn reason(&self) -> Option<Reason> {
        None
    }
}

impl Fault for Failure {
    fn class(&self) -> Class {
        self.class
    }

    fn hint(&self) -> Option<Hint> {
        self.hint.clone().map(Hint::Words)
    }

    fn docker_code(&self) -> Option<u8> {
        self.docker_code
    }

    fn reason(&self) -> Option<Reason> {
        self.reason.clone()
    }
}

impl Fault for StateError {
    fn class(&self) -> Class {
        Self::class(self)
    }

    fn hint(&self) -> Option<Hint> {
        match self {
            Self::Unknown(_) => Some(Hint::ListBoxes),
            _ => Self::hint(self).map(Hint::Words),
        }
    }
}

impl Fault for HomeError {
    fn class(&self) -> Class {
        Class::Config
    }

    fn hint(&self) -> Option<Hint> {
        Self::hint(self).map(Hint::Words)
    }
}

impl Fault for ImageError {
    fn class(&self) -> Class {
        crate::images::of_image(self).class
    }

    fn hint(&self) -> Option<Hint> {
        crate::images::of_image(self).hint.map(Hint::Words)
    }
}

impl Fault for RequestError {
    fn class(&self) -> Class {
        Class::Usage
    }

    fn hint(&self) -> Option<Hint> {
        match self {
            Self::Variable { .. } => Some("give the secret a name of its own, or leave the other value out".into()),
            Self::TwoSources(_) => Some("leave one of the two out, or give one another name".into()),
            _ => None,
        }
    }
}
