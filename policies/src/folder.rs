//! A folder of Rego that was read from a disk, as a policy: the same as a bundle that is packed from it.
//!
//! Takes names and texts from its caller, who has the disk. Passes over what no policy is made of, and never what OPA would read as data.

use std::path::Path;

use serde_json::{Map, Value};

use crate::{
    bounds::File,
    bundle::{data_at, is_data},
    files_digest,
};

/// Whether a file of that name is part of a policy; why not, of one that somebody may take for a part.
///
/// # Errors
/// Why it is refused, for after its path.
pub fn is_part(name: &str) -> Result<bool, &'static str> {
    let lower = name.to_lowercase();
    if is_data(name) || name.strip_suffix(".rego").is_some_and(|stem| !stem.is_empty()) {
        Ok(true)
    } else if Path::new(name).extension().is_some_and(|ending| ending.eq_ignore_ascii_case("rego")) {
        Err("is not read: the names of policies end in .rego, in lower case")
    } else if lower.starts_with("data.") {
        Err("is not read: data stands in data.json")
    } else {
        Ok(false)
    }
}

/// Its Rego, its data, and what names both.
#[derive(Clone, Debug, PartialEq)]
pub struct Folder {
    /// Its texts, unit tests among them.
    pub files: Vec<File>,
    /// Its data, merged.
    pub data: Option<Value>,
    /// SHA-256 of names and texts, unit tests left out.
    pub digest: [u8; 32],
}

impl Folder {
    /// Of texts with what they are called, and of each `data.json` where it stands: folders with slashes, none at the top.
    ///
    /// # Errors
    /// The name of a file, and what is wrong with its data.
    pub fn of(parts: Vec<(Option<String>, File)>) -> Result<Self, (String, String)> {
        let all: Vec<File> = parts.iter().map(|(_, file)| file.clone()).collect();
        let (mut files, mut data) = (Vec::new(), Value::Object(Map::new()));
        for (at, file) in parts {
            match at {
                None => files.push(file),
                Some(folder) => data_at(&mut data, &folder, file.text.as_bytes()).map_err(|why| (file.name, why))?,
            }
        }
        let data = data.as_object().is_some_and(|fields| !fields.is_empty()).then_some(data);
        Ok(Self { files, data, digest: files_digest(&all) })
    }
}

/// Where the data of a path below the folder stands; `None` of what is no data.
pub fn data_folder(path: &str) -> Option<String> {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    is_data(name).then(|| folder.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Policy;

    fn folder(parts: &[(&str, &str)]) -> Result<Folder, (String, String)> {
        Folder::of(parts.iter().map(|(path, text)| (data_folder(path), File::new(*path, *text))).collect())
    }

    #[test]
    fn data_stands_where_its_folder_says_and_names_the_policy_too() {
        let rego = ("blk.rego", "package blk\nallow := true\ndeny contains \"listed\" if data.lists.bad[input.x]");
        let whole = folder(&[rego, ("data.json", r#"{"a": 1}"#), ("lists/data.json", r#"{"bad": {"y": 1}}"#)]).unwrap();
        assert_eq!(whole.data, Some(json!({"a": 1, "lists": {"bad": {"y": 1}}})));
        let policy = Policy::of("blk", &whole.files, whole.data.as_ref(), whole.digest).unwrap();
        assert!(!policy.decide(&json!({"x": "y"})).allows() && policy.decide(&json!({"x": "z"})).allows());
        let other = folder(&[rego, ("data.json", r#"{"a": 2}"#), ("lists/data.json", "{}")]).unwrap();
        assert_ne!(other.digest, whole.digest);
        let alone = folder(&[rego]).unwrap();
        assert_eq!((alone.data, alone.digest), (None, files_digest(&[File::new(rego.0, rego.1)])));
        for bad in ["[]", "{", r#"{"bad": 1, "bad": 2}"#, r#"{"bad": {"y": 2}}"#] {
            let said = folder(&[rego, ("data.json", r#"{"lists": {"bad": {"y": 1}}}"#), ("lists/data.json", bad)]);
            assert_eq!(said.unwrap_err().0, "lists/data.json", "{bad}");
        }
    }

    #[test]
    fn what_somebody_may_take_for_a_part_is_one_or_refused() {
        for part in ["data.json", "data.rego", "x.rego", "x_test.rego"] {
            assert_eq!(is_part(part), Ok(true), "{part}");
        }
        for bad in ["data.yaml", "data.yml", "Data.json", "data.json.orig", "x.REGO", "x.Rego"] {
            assert!(is_part(bad).is_err(), "{bad}");
        }
        for other in ["README.md", ".manifest", "input.json", ".rego.swp", "metadata.json"] {
            assert_eq!(is_part(other), Ok(false), "{other}");
        }
    }
}
