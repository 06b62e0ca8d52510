//! The one table of codes: every check there is, in the order in which results print them. One defect has one code,
//! wherever it is met: `verify`, `attest`, `inject-secret`, the key broker's log and its audit trail.
//!
//! A code is stable: it may be added, and is never given another meaning. docs/verifier.md prints this table; a test compares.

use core::fmt;

/// Where in the road from bytes to a decision a check stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// The report's own bytes.
    Report,
    /// Certificates and revocation lists, as bytes and as a chain.
    Endorsements,
    /// The report against its certificate, and what it is bound to.
    Binding,
    /// The guest that is expected, whatever a policy says.
    Expected,
    /// The policy's typed floor.
    Policy,
    /// Said only where it fails: such a line is in no list of checks that were passed or not made.
    Elsewhere,
}

macro_rules! codes {
    ($($variant:ident $name:literal $stage:ident $meaning:literal;)*) => {
        /// What one check is about.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Code {
            $(#[doc = $meaning] $variant,)*
        }

        impl Code {
            /// All of them, in order.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The word in results, logs and audit trails.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Where it stands.
            pub const fn stage(self) -> Stage {
                match self { $(Self::$variant => Stage::$stage,)* }
            }

            /// What is checked, in words.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)* }
            }
        }
    };
}

codes! {
    EvidenceMalformed "evidence-malformed" Elsewhere "the message or record around a report is what it should be";
    ReportMalformed "report-malformed" Report "1184 bytes, version 2 to 5, reserved bytes and bits as they must be";
    HostRequested "host-requested" Report "a guest asked for the report, not the host";
    NotSigned "not-signed" Report "the report is signed by a VCEK or VLEK";
    ProductUnknown "product-unknown" Report "the processor is of a product line with a known root";
    CertificateTable "certificate-table" Endorsements "the certificate table sent with the evidence is one";
    TooManyEndorsements "too-many-endorsements" Endorsements "the evidence brings no more certificates and lists than a few chains have";
    Pem "pem" Elsewhere "PEM text among the endorsements is whole";
    CertificateForm "certificate-form" Endorsements "every certificate has one of AMD's forms";
    CrlForm "crl-form" Endorsements "every revocation list is complete and in AMD's form";
    EndorsementMissing "endorsement-missing" Endorsements "leaf, intermediate, root and revocation list are at hand";
    Issuer "issuer" Endorsements "the leaf names an issuer of its own product line";
    UntrustedRoot "untrusted-root" Endorsements "the root's public key is a pinned or a listed one";
    CertificateDates "certificate-dates" Endorsements "every certificate of the chain is valid now";
    CertificateKey "certificate-key" Endorsements "every public key of the chain is usable";
    CertificateSignature "certificate-signature" Endorsements "every certificate is signed by the one above it";
    CrlSignature "crl-signature" Endorsements "the revocation list is signed by the root";
    CrlDates "crl-dates" Endorsements "the revocation list is fresh";
    CrlNumber "crl-number" Endorsements "no newer revocation list was seen before";
    Revoked "revoked" Endorsements "the list names no certificate of the chain";
    SigningKey "signing-key" Binding "the leaf certifies the kind of key that the report names";
    Product "product" Binding "report and leaf are of one product line";
    Tcb "tcb" Binding "the leaf certifies the reported TCB, part by part";
    ChipId "chip-id" Binding "the leaf certifies the chip that reports";
    Signature "signature" Binding "the leaf's key signed the report's bytes";
    ReportData "report-data" Binding "REPORT_DATA is what this verifier, connection or challenge demands";
    RuntimeData "runtime-data" Binding "REPORT_DATA is the hash of the data the report travelled with";
    WorkloadSpec "workload-spec" Binding "the workload spec sent is the one HOST_DATA names";
    Guest "measurement-and-workload" Expected "the guest is the platform and workload that is expected, or a pair the policy lists";
    Signer "signer" Expected "an author that may admit it signed this launch";
    ProductRefused "product-refused" Policy "the policy accepts the product line";
    ProductDenied "product-denied" Policy "the policy does not deny the product line";
    ChipNotListed "chip-not-listed" Policy "the policy lists the chip";
    ChipDenied "chip-denied" Policy "the policy does not deny the chip, and knows which it is while it denies one";
    Vmpl "vmpl" Policy "the report was asked for from an accepted privilege level";
    Debug "debug" Policy "the host may not read the guest's memory";
    MigrationAgent "migration-agent" Policy "no migration agent may be associated";
    GuestPolicy "guest-policy" Policy "the other bits of POLICY are as wanted";
    MinimumAbi "minimum-abi" Policy "POLICY demands this ABI version or a later one";
    PlatformInfo "platform-info" Policy "the bits of PLATFORM_INFO are as wanted";
    PlatformInfoUnknown "platform-info-unknown" Policy "bits of PLATFORM_INFO that have no name here";
    TcbNoMinimum "tcb-no-minimum" Policy "the policy has a minimum TCB for this processor";
    TcbMinimum "tcb-minimum" Policy "the reported TCB reaches every minimum";
    TcbMinimumCommitted "tcb-minimum-committed" Policy "the committed TCB reaches every minimum";
    TcbMinimumLaunch "tcb-minimum-launch" Policy "the TCB at launch reaches every minimum";
    ProvisionalFirmware "provisional-firmware" Policy "the firmware running is committed";
    LaunchMitigations "launch-mitigations" Policy "mitigations that were on at launch";
    CurrentMitigations "current-mitigations" Policy "mitigations that are on now";
    CrlAge "crl-age" Policy "the revocation list is not older than the policy says";
    GuestSvn "guest-svn" Policy "the guest's version reaches the minimum";
    Measurement "measurement" Policy "the policy lists the launch digest";
    HostData "host-data" Policy "the policy lists HOST_DATA";
    IdKey "id-key" Policy "the policy lists the ID key";
    AuthorKey "author-key" Policy "the policy lists the author key";
    Rego "rego" Elsewhere "a Rego policy of the caller agrees";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl serde::Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl PartialEq<str> for Code {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Code {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_names_one_code_and_is_kebab_case() {
        for (index, code) in Code::ALL.iter().enumerate() {
            assert!(code.as_str().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{code}");
            assert!(Code::ALL[..index].iter().all(|other| other.as_str() != code.as_str()), "{code}");
        }
    }

    #[test]
    fn the_table_stands_in_the_documentation_word_for_word() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/verifier.md");
        let page = std::fs::read_to_string(path).unwrap();
        let section = page.split("## Codes").nth(1).expect("a section `## Codes`");
        let rows: Vec<_> =
            section.split("\n## ").next().unwrap().lines().filter(|line| line.starts_with("| `")).collect();
        let table: Vec<_> = Code::ALL.iter().map(|code| format!("| `{code}` | {} |", code.meaning())).collect();
        assert_eq!(rows, table);
    }
}
