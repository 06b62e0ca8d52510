//! What a reference manifest says.

use std::collections::BTreeSet;

use serde::{Deserialize, Deserializer, Serialize};

use crate::{
    UnixTime,
    abi::{Measurement, WorkloadDigest},
    measure::LaunchForm,
};

/// Why bytes are no reference manifest, or no envelope of one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// Longer than any manifest.
    #[error("{part} has {found} bytes, more than {limit}")]
    TooLong {
        /// `envelope` or `manifest`.
        part: &'static str,
        /// Bytes given.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// Not JSON, an unknown or missing key, or a value of another kind.
    #[error("{part}: {message}")]
    Json {
        /// `envelope` or `manifest`.
        part: &'static str,
        /// The parser's words.
        message: String,
    },
    /// A value that means nothing.
    #[error("{field}: expected {expected}")]
    Field {
        /// Which field.
        field: String,
        /// What stands there in a good one.
        expected: &'static str,
    },
}

/// One file or part of the platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    /// `kernel`, `initrd`, `module xyz.ko` …
    pub name: String,
    /// SHA-256 of its bytes.
    pub sha256: [u8; 32],
}

/// The measurement of the workload on one shape of machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeasuredLaunch {
    /// How the first processor enters, and with it which pages are loaded.
    pub launch: LaunchForm,
    /// Virtual processors.
    pub vcpus: u32,
    /// QEMU's name of their type, whose signature is measured.
    pub vcpu_type: String,
    /// Launch digest.
    pub measurement: Measurement,
}

/// What stands in a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// Name; one of a name replaces the older one.
    pub name: String,
    /// Number that only grows within a name, 1 to [`MAX_SEQUENCE`].
    pub sequence: u64,
    /// The number its author gave it, below `sequence`, where somebody else has dated it anew; nothing in the author's own.
    pub release: Option<u64>,
    /// When it was made.
    pub created: UnixTime,
    /// From when on it admits nothing.
    pub expires: UnixTime,
    /// What the platform was made of; for people and auditors, the measurements say the same.
    pub components: Vec<Component>,
    /// Digest of the workload spec.
    pub workload: WorkloadDigest,
    /// Its launches, each admitted.
    pub measurements: Vec<MeasuredLaunch>,
}

impl Contents {
    /// The number its author gave it, whoever has dated it since.
    pub fn released(&self) -> u64 {
        self.release.unwrap_or(self.sequence)
    }

    /// True if this must not take the place of `before`, of the same name: its author made it earlier, or no later and it says something
    /// else. Dating an older release anew makes no newer one of it, also where a newer one says the same: what is remembered of the
    /// newest would go back, and what lies between the two would be let in after it.
    pub fn goes_back_behind(&self, before: &Self) -> bool {
        let same = (&self.components, &self.workload, &self.measurements)
            == (&before.components, &before.workload, &before.measurements);
        self.released() < before.released() || !same && self.released() == before.released()
    }
}

/// A manifest without a wrong value. Whether anybody signed it is not said here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferenceManifest(Contents);

impl ReferenceManifest {
    /// Makes one.
    ///
    /// # Errors
    /// [`ManifestError::Field`] names the first value that means nothing.
    pub fn new(contents: Contents) -> Result<Self, ManifestError> {
        let field = |field: &str, expected| Err(ManifestError::Field { field: field.into(), expected });
        if !is_word(&contents.name, 128) {
            return field("name", "1 to 128 printable ASCII characters without spaces");
        }
        if !(1..=MAX_SEQUENCE).contains(&contents.sequence) {
            return field("sequence", "1 to 9007199254740991");
        }
        if contents.release.is_some_and(|release| release == 0 || release >= contents.sequence) {
            return field("release", "1 or more, and less than sequence");
        }
        if contents.created.0 < 0 || contents.expires <= contents.created {
            return field("expires", "a time after created, which is after 1970");
        }
        if contents.workload.is_zero() {
            return field("workload_digest", "a digest that is not zero");
        }
        if !(1..=MAX_ENTRIES).contains(&contents.measurements.len()) {
            return field("measurements", "1 to 256 entries");
        }
        if contents.components.len() > MAX_ENTRIES {
            return field("components", "at most 256 entries");
        }
        let mut shapes = BTreeSet::new();
        for (at, launch) in contents.measurements.iter().enumerate() {
            let place = |name: &str| format!("measurements[{at}].{name}");
            if !launch.launch.is_machine() {
                return field(
                    &place("launch"),
                    "reset-vector or long-mode: what is no machine is listed by its measurement",
                );
            }
            if launch.vcpus == 0 {
                return field(&place("vcpus"), "1 or more");
            }
            if !is_word(&launch.vcpu_type, 32) {
                return field(&place("vcpu_type"), "1 to 32 printable ASCII characters without spaces");
            }
            if launch.measurement.is_zero() {
                return field(&place("measurement"), "a digest that is not zero");
            }
            if !shapes.insert((launch.launch, launch.vcpus, launch.vcpu_type.as_str())) {
                return field(&place("vcpus"), "each form, number and type once");
            }
        }
        let mut names = BTreeSet::new();
        for (at, component) in contents.components.iter().enumerate() {
            let place = format!("components[{at}].name");
            if component.name.is_empty() || component.name.len() > 128 || component.name.chars().any(char::is_control) {
                return field(&place, "1 to 128 bytes without control characters");
            }
            if !names.insert(component.name.as_str()) {
                return field(&place, "each name once");
            }
        }
        Ok(Self(contents))
    }

    /// Parses the payload of an envelope.
    ///
    /// # Errors
    /// [`ManifestError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > MAX_PAYLOAD {
            return Err(ManifestError::TooLong { part: "manifest", found: bytes.len(), limit: MAX_PAYLOAD });
        }
        let wire: Wire = serde_json::from_slice(bytes).map_err(|error| ManifestError::Json {
            part: "manifest",
            message: crate::said::json_error(bytes, &error),
        })?;
        let only = match wire.version {
            1 => Some(LaunchForm::ResetVector),
            VERSION => None,
            _ => return Err(ManifestError::Field { field: "version".into(), expected: "1 or 2" }),
        };
        let time = |field: &str, text: &str| {
            UnixTime::parse(text)
                .map_err(|_| ManifestError::Field { field: field.into(), expected: "a time like 2026-09-20T00:00:00Z" })
        };
        let components = wire.components.into_iter().enumerate().map(|(at, one)| {
            let sha256 = hex32(&one.sha256).ok_or_else(|| ManifestError::Field {
                field: format!("components[{at}].sha256"),
                expected: "64 lower-case hexadecimal digits",
            })?;
            Ok::<_, ManifestError>(Component { name: one.name, sha256 })
        });
        let launch = |(at, one): (usize, WireLaunch)| {
            let expected = match (only, one.launch) {
                (Some(launch), None) | (None, Some(launch)) => Ok(launch),
                (Some(_), Some(_)) => Err("nothing: version 1 has one form and does not name it"),
                (None, None) => Err("reset-vector or long-mode"),
            };
            let launch = expected
                .map_err(|expected| ManifestError::Field { field: format!("measurements[{at}].launch"), expected })?;
            let WireLaunch { vcpus, vcpu_type, measurement, .. } = one;
            Ok::<_, ManifestError>(MeasuredLaunch { launch, vcpus, vcpu_type, measurement })
        };
        Self::new(Contents {
            created: time("created", &wire.created)?,
            expires: time("expires", &wire.expires)?,
            components: components.collect::<Result<_, _>>()?,
            measurements: wire.measurements.into_iter().enumerate().map(launch).collect::<Result<_, _>>()?,
            name: wire.name,
            sequence: wire.sequence,
            release: wire.release,
            workload: wire.workload_digest,
        })
    }

    /// The payload to sign, in the newest version.
    pub fn to_bytes(&self) -> Vec<u8> {
        let Contents { name, sequence, release, created, expires, components, workload, measurements } = &self.0;
        let wire = Wire {
            version: VERSION,
            name: name.clone(),
            sequence: *sequence,
            release: *release,
            created: created.to_string(),
            expires: expires.to_string(),
            components: components
                .iter()
                .map(|one| WireComponent { name: one.name.clone(), sha256: hex::encode(one.sha256) })
                .collect(),
            workload_digest: *workload,
            measurements: measurements
                .iter()
                .map(|one| WireLaunch {
                    launch: Some(one.launch),
                    vcpus: one.vcpus,
                    vcpu_type: one.vcpu_type.clone(),
                    measurement: one.measurement,
                })
                .collect(),
        };
        serde_json::to_vec_pretty(&wire).expect("strings and numbers are JSON")
    }

    /// What it says.
    pub fn contents(&self) -> &Contents {
        &self.0
    }

    /// Every measurement of it, each admitted for [`Contents::workload`].
    pub fn measurements(&self) -> impl Iterator<Item = &Measurement> {
        self.0.measurements.iter().map(|launch| &launch.measurement)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    version: u32,
    name: String,
    sequence: u64,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    release: Option<u64>,
    created: String,
    expires: String,
    components: Vec<WireComponent>,
    workload_digest: WorkloadDigest,
    measurements: Vec<WireLaunch>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireComponent {
    name: String,
    sha256: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireLaunch {
    #[serde(default, deserialize_with = "present")]
    launch: Option<LaunchForm>,
    vcpus: u32,
    vcpu_type: String,
    measurement: Measurement,
}

/// A key that is there has a value: `null` is none.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

fn hex32(text: &str) -> Option<[u8; 32]> {
    let bytes: [u8; 32] = hex::decode(text).ok()?.try_into().ok()?;
    (hex::encode(bytes) == text).then_some(bytes)
}

/// Printable ASCII without spaces, so that it reads the same in a log, on a command line and in a table.
fn is_word(text: &str, limit: usize) -> bool {
    !text.is_empty() && text.len() <= limit && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Largest whole number every JSON reader keeps (RFC 8259 §6).
pub const MAX_SEQUENCE: u64 = (1 << 53) - 1;
/// What is written. Version 1, without `launch`, is of the one form there was.
const VERSION: u32 = 2;
const MAX_ENTRIES: usize = 256;
pub(super) const MAX_PAYLOAD: usize = 128 * 1024;

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn launch(launch: LaunchForm, vcpus: u32, digest: u8) -> MeasuredLaunch {
        let measurement = Measurement::new([digest; 48]);
        MeasuredLaunch { launch, vcpus, vcpu_type: "EPYC-Milan".into(), measurement }
    }

    pub(crate) fn contents() -> Contents {
        Contents {
            name: "registry.example/web:1".into(),
            sequence: 7,
            release: None,
            created: UnixTime(1_000),
            expires: UnixTime(2_000),
            components: vec![Component { name: "kernel".into(), sha256: [1; 32] }],
            workload: WorkloadDigest::new([2; 32]),
            measurements: vec![
                launch(LaunchForm::ResetVector, 1, 3),
                launch(LaunchForm::ResetVector, 2, 4),
                launch(LaunchForm::LongMode, 2, 5),
            ],
        }
    }

    #[test]
    fn parses_what_it_writes() {
        let manifest = ReferenceManifest::new(contents()).unwrap();
        assert_eq!(ReferenceManifest::parse(&manifest.to_bytes()), Ok(manifest));
    }

    #[test]
    fn one_that_is_dated_anew_keeps_its_authors_number() {
        let dated = Contents { sequence: 9, release: Some(7), ..contents() };
        let manifest = ReferenceManifest::new(dated.clone()).unwrap();
        assert_eq!(ReferenceManifest::parse(&manifest.to_bytes()), Ok(manifest));
        assert_eq!((contents().released(), dated.released()), (7, 7));
        let own = String::from_utf8(ReferenceManifest::new(contents()).unwrap().to_bytes()).unwrap();
        assert!(!own.contains("release"), "the author's own is written as ever");
        // The same release again is no step back; an earlier one is, whatever it says, and so is another text of the same.
        let other =
            |sequence, release| Contents { sequence, release, workload: WorkloadDigest::new([9; 32]), ..contents() };
        assert!(!dated.goes_back_behind(&dated) && !contents().goes_back_behind(&dated));
        assert!(other(20, Some(6)).goes_back_behind(&dated) && other(20, Some(7)).goes_back_behind(&dated));
        assert!(other(7, None).goes_back_behind(&dated));
        let twin = |release| Contents { sequence: 20, release: Some(release), ..contents() };
        assert!(twin(6).goes_back_behind(&dated) && !twin(8).goes_back_behind(&dated), "an older twin of the newest");
        assert!(!other(20, Some(8)).goes_back_behind(&dated) && !other(8, None).goes_back_behind(&dated));
    }

    #[test]
    fn version_1_is_read_as_the_one_form_there_was() {
        let old = r#"{ "version": 1, "name": "registry.example/web:1", "sequence": 7, "created": "1970-01-01T00:16:40Z",
            "expires": "1970-01-01T00:33:20Z", "components": [], "workload_digest": "WORKLOAD",
            "measurements": [{ "vcpus": 1, "vcpu_type": "EPYC-Milan", "measurement": "MEASUREMENT" }] }"#;
        let old = old.replace("WORKLOAD", &"02".repeat(32)).replace("MEASUREMENT", &"03".repeat(48));
        let read = ReferenceManifest::parse(old.as_bytes()).unwrap();
        assert_eq!(read.contents().measurements, [launch(LaunchForm::ResetVector, 1, 3)]);
        // Written again, it says so.
        assert_eq!(ReferenceManifest::parse(&read.to_bytes()), Ok(read));

        let field = |text: &str| match ReferenceManifest::parse(text.as_bytes()) {
            Err(ManifestError::Field { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        // A form belongs to version 2, where it may not be missing.
        let named = old.replace(r#""vcpus": 1"#, r#""launch": "long-mode", "vcpus": 1"#);
        assert_eq!(field(&named), "measurements[0].launch");
        let null = old.replace(r#""vcpus": 1"#, r#""launch": null, "vcpus": 1"#);
        assert!(matches!(ReferenceManifest::parse(null.as_bytes()), Err(ManifestError::Json { .. })));
        assert_eq!(field(&old.replace(r#""version": 1"#, r#""version": 2"#)), "measurements[0].launch");
        assert!(ReferenceManifest::parse(named.replace(r#""version": 1"#, r#""version": 2"#).as_bytes()).is_ok());
    }

    #[test]
    fn refuses_values_that_mean_nothing_and_names_them() {
        let refused = |change: &dyn Fn(&mut Contents)| {
            let mut contents = contents();
            change(&mut contents);
            match ReferenceManifest::new(contents) {
                Err(ManifestError::Field { field, .. }) => field,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(refused(&|c| c.name = String::new()), "name");
        assert_eq!(refused(&|c| c.name = "a b".into()), "name");
        assert_eq!(refused(&|c| c.name = "a".repeat(129)), "name");
        assert_eq!(refused(&|c| c.sequence = 0), "sequence");
        assert_eq!(refused(&|c| c.sequence = MAX_SEQUENCE + 1), "sequence");
        assert_eq!(refused(&|c| c.release = Some(7)), "release");
        assert_eq!(refused(&|c| c.release = Some(0)), "release");
        assert_eq!(refused(&|c| c.expires = c.created), "expires");
        assert_eq!(refused(&|c| c.created = UnixTime(-1)), "expires");
        assert_eq!(refused(&|c| c.workload = WorkloadDigest::new([0; 32])), "workload_digest");
        assert_eq!(refused(&|c| c.measurements.clear()), "measurements");
        assert_eq!(
            refused(&|c| c.measurements[1].measurement = Measurement::new([0; 48])),
            "measurements[1].measurement"
        );
        assert_eq!(refused(&|c| c.measurements[1].vcpus = 1), "measurements[1].vcpus");
        assert_eq!(refused(&|c| c.measurements[0].vcpus = 0), "measurements[0].vcpus");
        // Nobody vouches for what is no machine beside what is one.
        assert_eq!(refused(&|c| c.measurements[0].launch = LaunchForm::Namespaces), "measurements[0].launch");
        assert_eq!(refused(&|c| c.measurements[0].vcpu_type.clear()), "measurements[0].vcpu_type");
        assert_eq!(refused(&|c| c.components[0].name = "a\n".into()), "components[0].name");
        assert_eq!(refused(&|c| c.components.push(c.components[0].clone())), "components[1].name");
        assert_eq!(refused(&|c| c.components = vec![c.components[0].clone(); 257]), "components");
    }

    #[test]
    fn refuses_unknown_keys_versions_and_other_json() {
        let good = String::from_utf8(ReferenceManifest::new(contents()).unwrap().to_bytes()).unwrap();
        let with = |from: &str, to: &str| {
            assert!(good.contains(from), "{from}");
            ReferenceManifest::parse(good.replacen(from, to, 1).as_bytes()).unwrap_err()
        };
        assert!(
            matches!(with("\"version\": 2", "\"version\": 3"), ManifestError::Field { field, .. } if field == "version")
        );
        for (from, to) in [
            ("\"version\": 2", "\"version\": 2, \"extra\": 1"),
            ("\"version\": 2", "\"version\": 2, \"version\": 2"),
            ("reset-vector", "reset_vector"),
            ("\"vcpus\": 1", "\"vcpus\": 1, \"extra\": 1"),
            ("\"vcpus\": 1", "\"vcpus\": -1"),
            ("\"sequence\": 7", "\"sequence\": 7.5"),
            ("\"sequence\": 7", "\"sequence\": 7, \"release\": null"),
            ("\"name\": \"kernel\",", ""),
            ("0303", "03"),
        ] {
            assert!(matches!(with(from, to), ManifestError::Json { .. }), "{from} {to}");
        }
        assert!(matches!(with("0101", "01"), ManifestError::Field { field, .. } if field == "components[0].sha256"));
        assert!(
            matches!(with("1970-01-01T00:16:40Z", "noon"), ManifestError::Field { field, .. } if field == "created")
        );
        assert!(matches!(ReferenceManifest::parse(&vec![b' '; MAX_PAYLOAD + 1]), Err(ManifestError::TooLong { .. })));
        assert!(matches!(ReferenceManifest::parse(b"{}x"), Err(ManifestError::Json { .. })));
    }
}
