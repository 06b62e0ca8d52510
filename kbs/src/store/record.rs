//! How the ledger names its rows and writes them as bytes: length-prefixed fields, as everywhere in this design.

use coffer_verifier::binding::length_prefixed;

use super::rows::Kind;
use crate::tenant::Tenant;

/// Name of one row that decides something. Ordered by kind, then tenant: the rows of one tenant lie side by side.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowKey {
    pub(super) kind: Kind,
    /// Empty where a row belongs to no tenant.
    tenant: String,
    parts: Vec<Vec<u8>>,
}

impl RowKey {
    /// A row of a tenant.
    pub(super) fn of(kind: Kind, tenant: &Tenant, parts: &[&[u8]]) -> Self {
        Self { kind, tenant: tenant.as_str().into(), parts: parts.iter().map(|part| part.to_vec()).collect() }
    }

    /// A row of the broker's own.
    pub(super) fn global(kind: Kind, parts: &[&[u8]]) -> Self {
        Self { kind, tenant: String::new(), parts: parts.iter().map(|part| part.to_vec()).collect() }
    }

    /// Before every row of this kind and tenant.
    pub(super) fn first(kind: Kind, tenant: &Tenant) -> Self {
        Self::of(kind, tenant, &[])
    }

    /// The tenant it belongs to, if it is one's.
    pub(super) fn tenant(&self) -> Option<Tenant> {
        Tenant::parse(&self.tenant).ok()
    }

    /// True if both are rows of one kind and tenant.
    pub(super) fn is_beside(&self, other: &Self) -> bool {
        self.kind == other.kind && self.tenant == other.tenant
    }

    /// True if this is a version of the secret whose head `head` is.
    pub(super) fn is_version_of(&self, head: &Self) -> bool {
        self.kind == Kind::SecretVersion && self.tenant == head.tenant && self.part(0) == head.part(0)
    }

    /// The parts that name it within its kind and tenant.
    pub(super) fn part(&self, at: usize) -> &[u8] {
        self.parts.get(at).map_or(&[], Vec::as_slice)
    }

    /// A part that is text.
    pub(super) fn text(&self, at: usize) -> String {
        String::from_utf8_lossy(self.part(at)).into_owned()
    }

    /// As the store has it.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let parts: Vec<&[u8]> =
            std::iter::once(self.tenant.as_bytes()).chain(self.parts.iter().map(Vec::as_slice)).collect();
        length_prefixed(&parts)
    }

    pub(super) fn from_bytes(kind: Kind, bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let tenant = fields.text()?;
        let mut parts = Vec::new();
        while !fields.0.is_empty() {
            parts.push(fields.bytes()?.to_vec());
        }
        Some(Self { kind, tenant, parts })
    }

    /// For a reader: what the row is about, without a value.
    pub(super) fn what(&self) -> String {
        let hex = |at| hex::encode(self.part(at));
        let row = match self.kind {
            Kind::SecretHead => format!("head of {}", self.text(0)),
            Kind::SecretVersion => {
                let number = self.part(1).try_into().map_or(0, u64::from_be_bytes);
                format!("version {number} of {}", self.text(0))
            }
            Kind::Reference => format!("reference of measurement {} and workload {}", hex(0), hex(1)),
            Kind::Signer => format!("signer {}", self.text(0)),
            Kind::ManifestKey => format!("manifest key {}", hex(0)),
            Kind::Manifest => format!("manifest {}", self.text(0)),
            Kind::ManifestWorkload => format!("workload {} of manifest {}", hex(0), self.text(1)),
            Kind::CrlNumber => format!("revocation list number of root {}", hex(0)),
            Kind::Crl => format!("revocation list of root {}", hex(0)),
            Kind::Admin => format!("operator {}", hex(0)),
            Kind::Tenant => format!("tenant {}", self.text(0)),
            Kind::Revocation => format!("revocation of {} {}", self.text(0), self.text(1)),
            Kind::AuditArchive => {
                let number = |at| self.part(at).try_into().map_or(0, u64::from_be_bytes);
                format!("record of the archive of lines {} to {}", number(1), number(0))
            }
            Kind::Restored => "record of the last restore".to_owned(),
            Kind::SealingContext => format!("sealing context {:?}", self.text(0)),
            Kind::Generation => format!("generation {} of sealing context {:?}", hex(5), self.text(4)),
            Kind::CertificateProfile => format!("certificate profile {}", self.text(0)),
            Kind::Policy => format!("policy {}", self.text(0)),
            Kind::TenantKey => format!("key {}", self.text(0)),
            Kind::Head | Kind::AuditLine | Kind::DecisionInput | Kind::StateEntry => self.kind.name().to_owned(),
        };
        if self.tenant.is_empty() { row } else { format!("{row} of tenant {}", self.tenant) }
    }
}

/// A row's content as a type.
pub(super) trait Record: Sized {
    /// To bytes.
    fn encode(&self) -> Vec<u8>;
    /// From bytes whose MAC held under `key`; nothing if another version wrote them.
    fn decode(key: &RowKey, body: &[u8]) -> Option<Self>;
}

/// Reads length-prefixed fields.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    /// The next field.
    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.0.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let field = rest.get(..length)?;
        self.0 = &rest[length..];
        Some(field)
    }

    /// A field of this length.
    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes()?.try_into().ok()
    }

    /// Text.
    pub(super) fn text(&mut self) -> Option<String> {
        Some(core::str::from_utf8(self.bytes()?).ok()?.to_owned())
    }

    /// A number.
    pub(super) fn unsigned(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// A time.
    pub(super) fn signed(&mut self) -> Option<i64> {
        self.array().map(i64::from_be_bytes)
    }

    /// Yes or no.
    pub(super) fn flag(&mut self) -> Option<bool> {
        match self.array()? {
            [0] => Some(false),
            [1] => Some(true),
            _ => None,
        }
    }

    /// A time that may not be there.
    #[allow(clippy::option_option, reason = "no field, or a field that says there is none")]
    pub(super) fn time(&mut self) -> Option<Option<i64>> {
        match self.bytes()? {
            [] => Some(None),
            time => Some(Some(i64::from_be_bytes(time.try_into().ok()?))),
        }
    }

    /// `value`, if nothing is left.
    pub(super) fn end<T>(self, value: T) -> Option<T> {
        self.0.is_empty().then_some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back_from_their_bytes() {
        let tenant = Tenant::parse("acme").unwrap();
        for key in [
            RowKey::of(Kind::SecretHead, &tenant, &[b"kbs:///a/b/c"]),
            RowKey::of(Kind::Reference, &tenant, &[&[1; 48], &[]]),
            RowKey::global(Kind::CrlNumber, &[&[2; 32]]),
        ] {
            assert_eq!(RowKey::from_bytes(key.kind, &key.to_bytes()), Some(key.clone()));
            let cut = key.to_bytes();
            assert_ne!(RowKey::from_bytes(key.kind, &cut[..cut.len() - 1]), Some(key));
        }
    }

    #[test]
    fn every_kind_has_a_name_of_its_own() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_name(kind.name()), Some(kind));
        }
    }
}
