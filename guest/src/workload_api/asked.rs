//! What the doors make of the first line of a request, for whoever tries all of them: fuzzing, and its replay.

use http::{Method, Uri};

use super::{Reader, call::Call, coco};

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    /// A call.
    Call {
        /// Bytes of its body at most.
        longest_body: usize,
    },
    /// None.
    Refused {
        /// What the caller would hear.
        said: String,
    },
}

impl Asked {
    /// At the socket and on loopback; nothing where it is no request line.
    pub fn at_each_door(method: &str, target: &str) -> Vec<Self> {
        let (Ok(method), Ok(uri)) = (method.parse::<Method>(), target.parse::<Uri>()) else { return Vec::new() };
        let doors: [Reader; 2] = [Call::read, coco::read];
        let read = |door: Reader| match door(&method, &uri) {
            Ok(call) => Self::Call { longest_body: call.longest_body() },
            Err(refusal) => Self::Refused { said: format!("{refusal:?}") },
        };
        doors.map(read).into()
    }
}
