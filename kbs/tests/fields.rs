//! Empty is not absent: every field of every request is tried empty, or zero where zero means nothing, and is refused by its
//! name. The fields come from the protocol's own descriptors, so that a new one cannot be forgotten.

use crate::common;
use std::collections::BTreeMap;

use crate::common::{Guest, Kbs, Key, PATH, TENANT, ark, crl};
use coffer_kbs_client::{
    AdminProfile,
    kbs::{
        admin::v1::{self, admin_client},
        v1 as kbs_v1,
    },
};
use coffer_ratls::{ClientTls, PeerPin, connect_pinned};
use coffer_verifier::manifest::{Contents, MeasuredLaunch, ReferenceManifest, SignedManifest};
use coffer_verifier::{
    UnixTime,
    abi::{Measurement, WorkloadDigest},
    measure::LaunchForm,
};
use prost::Message;
use tonic::{Code, Status, transport::Channel};

type Admin = admin_client::AdminClient<Channel>;

/// Fields where false, or zero, is something an operator means.
const MEANT: &[(&str, &str)] = &[
    ("PutSecretRequest", "allow_simulated"),    // false: not
    ("PutSecretRequest", "expected_version"),   // 0: there must be none
    ("PutSecretRequest", "rules"),              // none: nobody is ruled out
    ("PutSecretRequest", "labels"),             // none
    ("PutSecretRequest", "never_expires"),      // false: as it was
    ("ListSecretsRequest", "deleted"),          // false: not
    ("UpdateSecretRequest", "minimum_version"), // 0: every version
    ("UpdateSecretRequest", "labels"),          // none
    ("UpdateSecretRequest", "allow_simulated"), // false: not
    ("UpdateSecretRequest", "rules"),           // none: nobody is ruled out
    ("UpdateSecretRequest", "never_expires"),   // false: as it is
    ("Signer", "minimum_guest_svn"),            // 0: every version
    ("SealingContext", "terms"),                // the shipped policy, for hardware alone
    ("SealingContext", "created_unix"),         // the broker's to say
    ("Revocation", "by"),                       // the broker's to say
    ("Revocation", "since_unix"),               // the broker's to say
    ("Operator", "configured"),                 // the broker's to say
    ("TestPolicyRequest", "all"),               // false: not
    ("AuditRequest", "newest"),                 // false: oldest first
    ("AllowVolumeRequest", "anew"),             // false: recovered
    ("CertificateProfile", "terms"),            // as above
    ("CertificateProfile", "server_auth"),      // false: not
    ("CertificateProfile", "client_auth"),      // false: not
];

fn manifest() -> Vec<u8> {
    let now = i64::try_from(common::unix()).unwrap();
    let contents = Contents {
        name: "web".into(),
        sequence: 1,
        release: None,
        created: UnixTime(now - 10),
        expires: UnixTime(now + 600),
        components: Vec::new(),
        workload: WorkloadDigest::new([2; 32]),
        measurements: vec![MeasuredLaunch {
            launch: LaunchForm::ResetVector,
            vcpus: 1,
            vcpu_type: "EPYC-Milan".into(),
            measurement: Measurement::new([1; 48]),
        }],
    };
    let envelope = SignedManifest::of(&ReferenceManifest::new(contents).unwrap());
    let key = Key::new(0x30);
    let signature = key.sign(&envelope.signing_input());
    envelope.with_signature(&key.public, signature).to_json().into_bytes()
}

/// A good request of each kind, as it travels. In an order in which each finds what it needs.
fn good() -> Vec<(&'static str, Vec<u8>)> {
    let tenant = || TENANT.to_owned();
    let later = i64::try_from(common::unix()).unwrap() + 600;
    let (measurement, workload_digest) = (vec![1; 48], vec![2; 32]);
    let key = Key::new(0x30).public;
    let put = v1::PutSecretRequest {
        tenant: tenant(),
        path: PATH.into(),
        value: b"value".to_vec(),
        allow_simulated: Some(true),
        expected_version: None,
        policy: Some("default".into()),
        rules: Some(v1::Rules::default()),
        labels: Some(v1::Labels::default()),
        expires_unix: Some(later),
        never_expires: false,
    };
    let terms = Some(v1::Terms::default());
    let context = v1::SealingContext {
        tenant: tenant(),
        context: b"db".to_vec(),
        policies: vec!["workload".into()],
        terms: terms.clone(),
        created_unix: 1,
    };
    let profile = v1::CertificateProfile {
        tenant: tenant(),
        name: "web".into(),
        dns: vec!["web.example".into()],
        uris: vec!["spiffe://acme/web".into()],
        server_auth: true,
        client_auth: true,
        lifetime_seconds: 600,
        terms,
        audiences: vec!["https://audience.example".into()],
        issuer: Some("https://kbs.example".into()),
    };
    let reference = v1::Reference {
        tenant: tenant(),
        measurement: measurement.clone(),
        workload_digest: workload_digest.clone(),
        name: Some("web".into()),
        expires_unix: Some(later),
    };
    let signer = v1::Signer {
        tenant: tenant(),
        name: "web".into(),
        author_key_digest: vec![1; 48],
        family_id: vec![1; 16],
        image_id: vec![1; 16],
        minimum_guest_svn: 1,
        expires_unix: Some(later),
    };
    let manifest_key = v1::ManifestKey { tenant: tenant(), name: Some("ci".into()), public_key: key.to_spki_der() };
    let revocation = v1::Revocation {
        tenant: Some(tenant()),
        kind: "chip".into(),
        value: "07".repeat(64),
        reason: Some("stolen".into()),
        by: "somebody".into(),
        since_unix: 1,
    };
    let second = v1::Operator {
        name: "second".into(),
        spki_sha256: vec![3; 32],
        grants: vec![v1::Grant { role: "operator".into(), tenant: Some(tenant()) }],
        configured: true,
    };
    vec![
        ("PutSecretRequest", put.encode_to_vec()),
        ("ListSecretsRequest", v1::ListSecretsRequest { tenant: tenant(), deleted: true }.encode_to_vec()),
        ("GetSecretMetaRequest", v1::GetSecretMetaRequest { tenant: tenant(), path: PATH.into() }.encode_to_vec()),
        (
            "UpdateSecretRequest",
            v1::UpdateSecretRequest {
                tenant: tenant(),
                path: PATH.into(),
                minimum_version: Some(1),
                labels: Some(v1::Labels::default()),
                version: Some(1),
                allow_simulated: Some(true),
                policy: Some("default".into()),
                rules: Some(v1::Rules::default()),
                expires_unix: Some(later),
                never_expires: false,
            }
            .encode_to_vec(),
        ),
        (
            "DeleteSecretRequest",
            v1::DeleteSecretRequest { tenant: tenant(), path: PATH.into(), version: Some(1) }.encode_to_vec(),
        ),
        (
            "UndeleteSecretRequest",
            v1::UndeleteSecretRequest { tenant: tenant(), path: PATH.into(), version: Some(1) }.encode_to_vec(),
        ),
        (
            "DestroySecretRequest",
            v1::DestroySecretRequest { tenant: tenant(), path: PATH.into(), version: 1 }.encode_to_vec(),
        ),
        ("PutSealingContextRequest", v1::PutSealingContextRequest { context: Some(context) }.encode_to_vec()),
        ("ListSealingContextsRequest", v1::ListSealingContextsRequest { tenant: tenant() }.encode_to_vec()),
        (
            "RemoveSealingContextRequest",
            v1::RemoveSealingContextRequest { tenant: tenant(), context: b"db".to_vec() }.encode_to_vec(),
        ),
        ("ListVolumesRequest", v1::ListVolumesRequest { tenant: tenant() }.encode_to_vec()),
        (
            "AllowVolumeRequest",
            v1::AllowVolumeRequest { tenant: tenant(), name: b"db".to_vec(), subject: Some(vec![1; 32]), anew: true }
                .encode_to_vec(),
        ),
        ("PutCertificateProfileRequest", v1::PutCertificateProfileRequest { profile: Some(profile) }.encode_to_vec()),
        ("ListCertificateProfilesRequest", v1::ListCertificateProfilesRequest { tenant: tenant() }.encode_to_vec()),
        (
            "RemoveCertificateProfileRequest",
            v1::RemoveCertificateProfileRequest { tenant: tenant(), name: "web".into() }.encode_to_vec(),
        ),
        ("AddReferenceRequest", v1::AddReferenceRequest { reference: Some(reference) }.encode_to_vec()),
        ("ListReferencesRequest", v1::ListReferencesRequest { tenant: tenant() }.encode_to_vec()),
        (
            "RemoveReferenceRequest",
            v1::RemoveReferenceRequest { tenant: tenant(), measurement, workload_digest }.encode_to_vec(),
        ),
        ("AddSignerRequest", v1::AddSignerRequest { signer: Some(signer) }.encode_to_vec()),
        ("ListSignersRequest", v1::ListSignersRequest { tenant: tenant() }.encode_to_vec()),
        ("RemoveSignerRequest", v1::RemoveSignerRequest { tenant: tenant(), name: "web".into() }.encode_to_vec()),
        ("AddManifestKeyRequest", v1::AddManifestKeyRequest { key: Some(manifest_key) }.encode_to_vec()),
        ("ListManifestKeysRequest", v1::ListManifestKeysRequest { tenant: tenant() }.encode_to_vec()),
        ("AddManifestRequest", v1::AddManifestRequest { tenant: tenant(), envelope: manifest() }.encode_to_vec()),
        ("ListManifestsRequest", v1::ListManifestsRequest { tenant: tenant() }.encode_to_vec()),
        ("RevokeManifestRequest", v1::RevokeManifestRequest { tenant: tenant(), name: "web".into() }.encode_to_vec()),
        (
            "RemoveManifestKeyRequest",
            v1::RemoveManifestKeyRequest { tenant: tenant(), spki_sha256: key.spki_digest().as_bytes().to_vec() }
                .encode_to_vec(),
        ),
        ("AddRevocationRequest", v1::AddRevocationRequest { revocation: Some(revocation) }.encode_to_vec()),
        ("ListRevocationsRequest", v1::ListRevocationsRequest { tenant: Some(tenant()) }.encode_to_vec()),
        (
            "RemoveRevocationRequest",
            v1::RemoveRevocationRequest { tenant: Some(tenant()), kind: "chip".into(), value: "07".repeat(64) }
                .encode_to_vec(),
        ),
        (
            "PutPolicyRequest",
            v1::PutPolicyRequest { tenant: tenant(), name: "web".into(), text: "package web\nallow := true\n".into() }
                .encode_to_vec(),
        ),
        ("GetPolicyRequest", v1::GetPolicyRequest { tenant: tenant(), name: "web".into() }.encode_to_vec()),
        ("ListPoliciesRequest", v1::ListPoliciesRequest { tenant: tenant() }.encode_to_vec()),
        (
            "TestPolicyRequest",
            v1::TestPolicyRequest {
                tenant: tenant(),
                name: "web".into(),
                text: Some("package web\nallow := true\n".into()),
                since_unix: Some(1),
                all: true,
            }
            .encode_to_vec(),
        ),
        ("RemovePolicyRequest", v1::RemovePolicyRequest { tenant: tenant(), name: "web".into() }.encode_to_vec()),
        ("PutCrlRequest", v1::PutCrlRequest { crl: crl(0), root: Some(ark()) }.encode_to_vec()),
        ("ListCrlsRequest", v1::ListCrlsRequest {}.encode_to_vec()),
        ("RemoveCrlRequest", v1::RemoveCrlRequest { root: vec![7; 32] }.encode_to_vec()),
        ("ListGuestsRequest", v1::ListGuestsRequest { tenant: Some(tenant()) }.encode_to_vec()),
        ("AddTenantRequest", v1::AddTenantRequest { tenant: "other".into() }.encode_to_vec()),
        ("ListTenantsRequest", v1::ListTenantsRequest {}.encode_to_vec()),
        ("AddAdminRequest", v1::AddAdminRequest { admin: Some(second) }.encode_to_vec()),
        ("ListAdminsRequest", v1::ListAdminsRequest { tenant: Some(tenant()) }.encode_to_vec()),
        ("RemoveAdminRequest", v1::RemoveAdminRequest { spki_sha256: vec![3; 32] }.encode_to_vec()),
        ("ConfirmRestoredRequest", v1::ConfirmRestoredRequest {}.encode_to_vec()),
        (
            "AuditRequest",
            v1::AuditRequest {
                from_sequence: Some(1),
                limit: Some(1),
                tenant: Some(tenant()),
                id: Some("0123456789abcdef".into()),
                path: Some(PATH.into()),
                event: Some("secret".into()),
                outcome: Some("done".into()),
                since_unix: Some(1),
                until_unix: Some(later),
                newest: true,
            }
            .encode_to_vec(),
        ),
        (
            "GetDecisionInputRequest",
            v1::GetDecisionInputRequest {
                tenant: Some(tenant()),
                id: "0123456789abcdef".into(),
                from_sequence: Some(1),
            }
            .encode_to_vec(),
        ),
    ]
}

/// What a message holds: number of a field, whether it is a number, and its bytes (a number's as a varint).
fn parse(mut bytes: &[u8]) -> Vec<(u64, bool, Vec<u8>)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                return value;
            }
        }
    }
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        match tag & 7 {
            0 => {
                let value = varint(&mut bytes);
                let mut encoded = Vec::new();
                prost::encoding::encode_varint(value, &mut encoded);
                fields.push((tag >> 3, true, encoded));
            }
            2 => {
                let length = usize::try_from(varint(&mut bytes)).unwrap();
                fields.push((tag >> 3, false, bytes[..length].to_vec()));
                bytes = &bytes[length..];
            }
            other => panic!("wire type {other}"),
        }
    }
    fields
}

fn write(fields: &[(u64, bool, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, is_number, value) in fields {
        prost::encoding::encode_varint(number << 3 | if *is_number { 0 } else { 2 }, &mut out);
        if !is_number {
            prost::encoding::encode_varint(value.len() as u64, &mut out);
        }
        out.extend_from_slice(value);
    }
    out
}

/// The message with one field empty, or zero; and without it.
fn emptied(bytes: &[u8], number: i32) -> [Vec<u8>; 2] {
    let number = u64::try_from(number).unwrap();
    let (mut empty, mut absent) = (parse(bytes), parse(bytes));
    for field in &mut empty {
        if field.0 == number {
            field.2 = if field.1 { vec![0] } else { Vec::new() };
        }
    }
    absent.retain(|field| field.0 != number);
    [write(&empty), write(&absent)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_or_zero_field_is_refused_by_its_name() {
    let kbs = Kbs::start().await;
    let profile = AdminProfile::read(&kbs.state().join("admin.toml")).unwrap();
    let stream = tokio::net::TcpStream::connect(&profile.address).await.unwrap();
    let pin = PeerPin::Spki(profile.pins.clone());
    let tls = ClientTls::with_alpn(&profile.identity, pin, coffer_kbs_client::ALPN_ADMIN).unwrap();
    let admin = Admin::new(connect_pinned(stream, &tls).await.unwrap().0);

    let protos = ["client/proto/kbs.proto", "client/proto/kbs_admin.proto"];
    let set = protox::compile(protos, ["client/proto"]).unwrap();
    let messages: BTreeMap<String, _> = set
        .file
        .iter()
        .flat_map(|file| &file.message_type)
        .map(|message| (message.name().to_owned(), message.clone()))
        .collect();
    let asked = |package: &str| -> Vec<String> {
        let files = set.file.iter().filter(|file| file.package() == package);
        let methods = files.flat_map(|file| &file.service).flat_map(|service| &service.method);
        methods.map(|method| method.input_type().rsplit('.').next().unwrap().to_owned()).collect()
    };
    let good = good();
    let mut tried = 0;
    for (request, bytes) in &good {
        assert!(asked("coffer.kbs.admin.v1").iter().any(|name| name == request), "{request}");
        common::admin_call(&admin, request, bytes).await.unwrap_or_else(|status| panic!("{request}: {status}"));
    }
    for request in asked("coffer.kbs.admin.v1") {
        let (_, bytes) = good.iter().find(|(name, _)| *name == request).unwrap_or_else(|| panic!("{request} is new"));
        for field in &messages[&request].field {
            let inner = messages.get(field.type_name().rsplit('.').next().unwrap_or_default());
            let mut cases: Vec<(String, String, [Vec<u8>; 2])> = Vec::new();
            cases.push((request.clone(), field.name().to_owned(), emptied(bytes, field.number())));
            let meant = MEANT.contains(&(request.as_str(), field.name()));
            if let Some(inner) = inner.filter(|_| !field.type_name().is_empty() && !meant) {
                let all = parse(bytes);
                for below in &inner.field {
                    let changed = all.iter().map(|(number, is_number, value)| (*number, *is_number, value.clone()));
                    let forms = emptied(&all[0].2, below.number()).map(|form| {
                        let mut changed: Vec<_> = changed.clone().collect();
                        changed[0].2 = form;
                        write(&changed)
                    });
                    cases.push((inner.name().to_owned(), below.name().to_owned(), forms));
                }
                // An empty message has no tenant, which is said first.
                cases.remove(0);
            }
            for (message, name, [empty, absent]) in cases {
                if MEANT.contains(&(message.as_str(), name.as_str())) {
                    continue;
                }
                tried += 1;
                let status =
                    common::admin_call(&admin, &request, &empty).await.expect_err(&format!("{message}.{name}"));
                assert_eq!(status.code(), Code::InvalidArgument, "{message}.{name}: {status}");
                assert!(status.message().contains(&name), "{message}.{name}: {}", status.message());
                // What may be left out may be left out; the rest is refused by name as well.
                if let Err(status) = common::admin_call(&admin, &request, &absent).await
                    && status.code() == Code::InvalidArgument
                {
                    assert!(status.message().contains(&name), "{message}.{name}: {}", status.message());
                }
            }
        }
    }
    assert!(tried >= 30, "{tried}");

    // Guests learn no reason: the trail has it, by the field's name.
    let guest = Guest::usual();
    kbs.admit(guest.measurement, guest.document.digest()).await;
    let client = kbs.connect(guest).await.unwrap();
    let broker = GuestApi::new(client.connection().channel());
    let name = || kbs_v1::SealingName {
        policy: "workload".into(),
        scope: "agent".into(),
        context: b"db".to_vec(),
        minimum_svn: None,
    };
    let step = kbs_v1::GenerationStep { expected: 0, next: 1 };
    let good: Vec<(&str, Vec<u8>)> = vec![
        ("GetSecretRequest", kbs_v1::GetSecretRequest { path: PATH.into(), version: Some(1) }.encode_to_vec()),
        ("GetSealingKeyRequest", kbs_v1::GetSealingKeyRequest { name: Some(name()) }.encode_to_vec()),
        (
            "GenerationRequest",
            kbs_v1::GenerationRequest { name: Some(name()), counter_id: vec![1; 16], step: Some(step) }.encode_to_vec(),
        ),
        (
            "IssueCertificateRequest",
            kbs_v1::IssueCertificateRequest { csr: vec![1], profile: "web".into() }.encode_to_vec(),
        ),
        (
            "IssueTokenRequest",
            kbs_v1::IssueTokenRequest {
                audience: "https://audience.example".into(),
                csr: coffer_ratls::IdentityKey::generate().unwrap().signing_request().unwrap(),
                report: vec![1; 1184],
                nonce: Some(vec![1; 8]),
            }
            .encode_to_vec(),
        ),
    ];
    for request in asked("coffer.kbs.v1") {
        let (_, bytes) = good.iter().find(|(name, _)| *name == request).unwrap_or_else(|| panic!("{request} is new"));
        for field in &messages[&request].field {
            let [empty, _] = emptied(bytes, field.number());
            let status = ask(&broker, &request, &empty).await.unwrap_err();
            assert_eq!((status.code(), status.message()), (Code::PermissionDenied, "not-released"), "{request}");
            let id = coffer_ratls::Denial::of(&status).unwrap().id;
            let line = kbs.line_of(&id);
            // An empty message has no field, which is said instead: the first of them.
            let named = [field.name(), "name", "context", "step"].iter().any(|word| common::has_reason(&line, word));
            assert!(named, "{request}.{}: {line}", field.name());
        }
    }
}

type GuestApi = coffer_kbs_client::kbs::v1::broker_client::BrokerClient<Channel>;

async fn ask(broker: &GuestApi, request: &str, bytes: &[u8]) -> Result<(), Status> {
    let mut broker = broker.clone();
    match request {
        "GetSecretRequest" => broker.get_secret(kbs_v1::GetSecretRequest::decode(bytes).unwrap()).await.map(|_| ()),
        "GetSealingKeyRequest" => {
            broker.get_sealing_key(kbs_v1::GetSealingKeyRequest::decode(bytes).unwrap()).await.map(|_| ())
        }
        "GenerationRequest" => broker.generation(kbs_v1::GenerationRequest::decode(bytes).unwrap()).await.map(|_| ()),
        "IssueCertificateRequest" => {
            broker.issue_certificate(kbs_v1::IssueCertificateRequest::decode(bytes).unwrap()).await.map(|_| ())
        }
        "IssueTokenRequest" => broker.issue_token(kbs_v1::IssueTokenRequest::decode(bytes).unwrap()).await.map(|_| ()),
        other => panic!("{other} has no call here: add it, and a good one above"),
    }
}
