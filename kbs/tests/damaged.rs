//! A row that is damaged hides no other from whoever lists them, and is named beside them.

use crate::{
    common::{self, Guest, Kbs, PATH, TENANT, put},
    trust::{MANIFEST_KEY, add, contents, list_key, sign},
};
use coffer_kbs::Kind;
use coffer_kbs_client::{
    CertificateProfile, ClientError, Grant, SealingContext, Signer,
    kbs::admin::v1::{self, Terms},
};
use coffer_ratls::Identity;
use coffer_verifier::{
    Expiry, SignerRule,
    abi::{FamilyId, ImageId, KeyDigest},
};
use secrecy::SecretBox;

/// Of each kind two that are there: the first of them is damaged, the other stays.
const KINDS: [Kind; 9] = [
    Kind::SecretHead,
    Kind::Reference,
    Kind::Signer,
    Kind::ManifestKey,
    Kind::SealingContext,
    Kind::CertificateProfile,
    Kind::Policy,
    Kind::Admin,
    Kind::Revocation,
];

async fn two_of_each() -> Kbs {
    let kbs = Kbs::start().await;
    let (admin, guest) = (kbs.admin().await, Guest::usual());
    for (at, other) in [(1u8, "kbs:///a/b/c"), (2, PATH)] {
        let name = format!("one-{at}");
        let (path, value) = (other.parse().unwrap(), SecretBox::new(Box::new(b"value".to_vec())));
        admin.put_secret(put(&path, &value)).await.unwrap();
        let workload = coffer_verifier::abi::WorkloadDigest::new([at; 32]);
        kbs.admit(guest.measurement, workload).await;
        let rule = SignerRule {
            author_key: KeyDigest::new([at; 48]),
            family_id: FamilyId::new([0; 16]),
            image_id: ImageId::new([0; 16]),
            minimum_guest_svn: 1,
        };
        let signer = Signer { tenant: TENANT.into(), name: name.clone(), rule, expires: Expiry::Never };
        assert!(admin.add_signer(&signer).await.unwrap());
        assert!(list_key(&kbs, MANIFEST_KEY + at).await);
        let context = SealingContext {
            tenant: TENANT.into(),
            context: name.clone().into_bytes(),
            policies: vec!["workload".into()],
            terms: Some(Terms::default()),
            created_unix: 0,
        };
        admin.put_sealing_context(context).await.unwrap();
        let profile = CertificateProfile {
            tenant: TENANT.into(),
            name: name.clone(),
            dns: vec!["web.example".into()],
            server_auth: true,
            lifetime_seconds: 3600,
            terms: Some(Terms::default()),
            ..CertificateProfile::default()
        };
        admin.put_certificate_profile(profile).await.unwrap();
        admin.put_policy(TENANT, &name, "package one\nallow := true\n").await.unwrap();
        let grants = [Grant { role: "auditor".into(), tenant: None }];
        admin.add_admin(&name, &Identity::generate("one").unwrap().spki(), &grants).await.unwrap();
        admin.revoke(Some(TENANT), "workload", &hex::encode([at; 32]), None).await.unwrap();
    }
    kbs
}

/// How many of a kind are listed, and what is said of others.
async fn listed(kbs: &Kbs, kind: Kind) -> Result<(usize, Vec<String>), ClientError> {
    let admin = kbs.admin().await;
    macro_rules! listed {
        ($($call:tt)*) => {{
            let listed = admin.$($call)*.await?;
            (listed.rows.len(), listed.damaged)
        }};
    }
    Ok(match kind {
        Kind::SecretHead => listed!(list_secrets(TENANT, false)),
        Kind::Reference => listed!(list_references(TENANT)),
        Kind::Signer => listed!(list_signers(TENANT)),
        Kind::ManifestKey => listed!(list_manifest_keys(TENANT)),
        Kind::SealingContext => listed!(list_sealing_contexts(TENANT)),
        Kind::CertificateProfile => {
            let listed = admin.list_certificate_profiles(TENANT).await?;
            (listed.profiles.len(), listed.damaged)
        }
        Kind::Policy => {
            let listed: v1::ListPoliciesResponse = admin.list_policies(TENANT).await?;
            (listed.policies.len(), listed.damaged)
        }
        // The first operator stands in the configuration.
        Kind::Admin => {
            let listed = admin.list_admins(None).await?;
            (listed.rows.len() - 1, listed.damaged)
        }
        Kind::Revocation => listed!(list_revocations(Some(TENANT))),
        other => panic!("{other:?}"),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_damaged_row_hides_no_other_from_whoever_lists_them() {
    let kbs = two_of_each().await;
    for kind in KINDS {
        assert_eq!(listed(&kbs, kind).await.unwrap(), (2, Vec::new()), "{kind:?}");
        kbs.tamper(kind, |rows| {
            rows[0].1.body = vec![0];
        })
        .await;
        let (rows, damaged) = listed(&kbs, kind).await.unwrap();
        assert_eq!((rows, damaged.len()), (1, 1), "{kind:?}: {damaged:?}");
        assert!(damaged[0].contains("state verify"), "{damaged:?}");
    }
    // What is asked for by its name, and is not believed, is no defect of the protocol.
    let admin = kbs.admin().await;
    let meta = admin.secret_meta(TENANT, &"kbs:///a/b/c".parse().unwrap()).await.unwrap();
    assert!(meta.secret.is_none() && meta.versions.len() == 1 && meta.damaged.len() == 1, "{meta:?}");
    let asked = admin.policy(TENANT, "one-1").await;
    assert!(matches!(asked, Err(ClientError::NotAuthentic { .. })), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_manifest_or_key_hides_no_other_manifest() {
    let (kbs, guest) = (Kbs::start().await, Guest::usual());
    assert!(list_key(&kbs, MANIFEST_KEY).await && list_key(&kbs, MANIFEST_KEY + 1).await);
    let signed = |name: &str| {
        let contents = contents(1, guest.measurement, guest.document.digest());
        sign(coffer_verifier::manifest::Contents { name: name.into(), ..contents }, MANIFEST_KEY)
    };
    assert_eq!(add(&kbs, signed("a")).await, Ok(true));
    assert_eq!(add(&kbs, signed("b")).await, Ok(true));
    kbs.tamper(Kind::Manifest, |rows| rows[0].1.body = vec![0]).await;
    let other = common::Key::new(MANIFEST_KEY + 1).public.spki_digest();
    kbs.tamper(Kind::ManifestKey, |rows| {
        let row = rows.iter_mut().find(|(key, _)| key.ends_with(other.as_bytes())).unwrap();
        row.1.body = vec![0];
    })
    .await;
    let listed = kbs.admin().await.list_manifests(TENANT).await.unwrap();
    let names: Vec<_> = listed.rows.iter().map(|one| (one.name.as_str(), one.state.as_str())).collect();
    assert_eq!((names, listed.damaged.len()), (vec![("b", "current")], 2), "{:?}", listed.damaged);
    assert_eq!(add(&kbs, signed("c")).await, Ok(true), "a key that is believed goes on");
}
