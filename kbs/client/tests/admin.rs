//! The operator's client: one profile file, one pinned server, answers told apart.

use std::{os::unix::fs::PermissionsExt, sync::Mutex};

use coffer_kbs_client::{
    ALPN_ADMIN, AdminClient, AdminProfile, ClientError, Expected, ManifestKey, ProfileError, PutSecret, Reference,
    RevokedManifest, Signer, Stated, StillAdmitted, Stored,
    kbs::admin::v1::{
        self,
        admin_server::{Admin, AdminServer},
    },
};
use coffer_ratls::{ClientRule, Identity, ServeLimits, ServerTls, serve_pinned};
use coffer_verifier::{
    Expiry, P384PublicKey, SignerRule, UnixTime,
    abi::{FamilyId, ImageId, KeyDigest, Measurement, SpkiDigest, WorkloadDigest},
};
use secrecy::SecretBox;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status, service::Routes};

#[derive(Default)]
struct FakeAdmin {
    references: Mutex<Vec<v1::Reference>>,
    signer: Mutex<Option<v1::Signer>>,
    key: Mutex<Option<v1::ManifestKey>>,
}

fn manifest() -> v1::ManifestInfo {
    v1::ManifestInfo {
        name: "web".into(),
        sequence: 3,
        workload_digest: vec![2; 32],
        key: vec![4; 32],
        measurements: 5,
        state: "current".into(),
        ..v1::ManifestInfo::default()
    }
}

/// What `async_trait` makes of a method, for those that no test here asks.
macro_rules! unanswered {
    ($($name:ident: $request:ident => $response:ident),* $(,)?) => {
        $(fn $name<'a, 'f>(&'a self, _: Request<v1::$request>) -> Answering<'f, v1::$response>
        where
            'a: 'f,
        {
            Box::pin(async { Err(Status::unimplemented("no test asks")) })
        })*
    };
}

type Answering<'f, R> = std::pin::Pin<Box<dyn Future<Output = Result<Response<R>, Status>> + Send + 'f>>;

#[tonic::async_trait]
impl Admin for FakeAdmin {
    async fn put_secret(&self, r: Request<v1::PutSecretRequest>) -> Result<Response<v1::PutSecretResponse>, Status> {
        match r.get_ref().expected_version {
            Some(0) => Err(Status::failed_precondition("secret exists at version 7\n")),
            Some(_) => Err(Status::permission_denied("role-missing")),
            None => {
                let stated = |version, policy: &str, allow_simulated| v1::SecretStated {
                    version,
                    terms: Some(v1::Terms { allow_simulated, policy: Some(policy.to_owned()), rules: None }),
                    ..v1::SecretStated::default()
                };
                let now = stated(r.get_ref().value.len() as u64, "default", true);
                Ok(Response::new(v1::PutSecretResponse { now: Some(now), before: Some(stated(4, "lax", false)) }))
            }
        }
    }
    async fn list_secrets(
        &self,
        r: Request<v1::ListSecretsRequest>,
    ) -> Result<Response<v1::ListSecretsResponse>, Status> {
        let current = v1::SecretVersion { version: 1, length: 7, ..v1::SecretVersion::default() };
        let path = r.into_inner().tenant;
        let info = v1::SecretInfo { path, current: Some(current), ..v1::SecretInfo::default() };
        Ok(Response::new(v1::ListSecretsResponse { secrets: vec![info], damaged: Vec::new() }))
    }
    async fn delete_secret(
        &self,
        _: Request<v1::DeleteSecretRequest>,
    ) -> Result<Response<v1::DeleteSecretResponse>, Status> {
        Ok(Response::new(v1::DeleteSecretResponse { existed: true }))
    }
    async fn add_reference(
        &self,
        r: Request<v1::AddReferenceRequest>,
    ) -> Result<Response<v1::AddReferenceResponse>, Status> {
        self.references.lock().unwrap().push(r.into_inner().reference.unwrap());
        Ok(Response::new(v1::AddReferenceResponse { added: true }))
    }
    async fn list_references(
        &self,
        r: Request<v1::ListReferencesRequest>,
    ) -> Result<Response<v1::ListReferencesResponse>, Status> {
        let mut references = self.references.lock().unwrap().clone();
        if r.get_ref().tenant == "broken" {
            references[0].measurement.pop();
        }
        Ok(Response::new(v1::ListReferencesResponse { references, damaged: Vec::new() }))
    }
    async fn remove_reference(
        &self,
        _: Request<v1::RemoveReferenceRequest>,
    ) -> Result<Response<v1::RemoveReferenceResponse>, Status> {
        Ok(Response::new(v1::RemoveReferenceResponse { existed: false }))
    }
    async fn add_signer(&self, r: Request<v1::AddSignerRequest>) -> Result<Response<v1::AddSignerResponse>, Status> {
        *self.signer.lock().unwrap() = r.into_inner().signer;
        Ok(Response::new(v1::AddSignerResponse { added: true }))
    }
    async fn list_signers(
        &self,
        r: Request<v1::ListSignersRequest>,
    ) -> Result<Response<v1::ListSignersResponse>, Status> {
        let mut signers: Vec<_> = self.signer.lock().unwrap().clone().into_iter().collect();
        if r.get_ref().tenant == "broken" {
            signers[0].image_id.pop();
        }
        Ok(Response::new(v1::ListSignersResponse { signers, damaged: Vec::new() }))
    }
    async fn remove_signer(
        &self,
        _: Request<v1::RemoveSignerRequest>,
    ) -> Result<Response<v1::RemoveSignerResponse>, Status> {
        Ok(Response::new(v1::RemoveSignerResponse { existed: false }))
    }
    async fn add_manifest_key(
        &self,
        r: Request<v1::AddManifestKeyRequest>,
    ) -> Result<Response<v1::AddManifestKeyResponse>, Status> {
        *self.key.lock().unwrap() = r.into_inner().key;
        Ok(Response::new(v1::AddManifestKeyResponse { added: true }))
    }
    async fn list_manifest_keys(
        &self,
        r: Request<v1::ListManifestKeysRequest>,
    ) -> Result<Response<v1::ListManifestKeysResponse>, Status> {
        let mut keys: Vec<_> = self.key.lock().unwrap().clone().into_iter().collect();
        if r.get_ref().tenant == "broken" {
            keys[0].public_key.pop();
        }
        Ok(Response::new(v1::ListManifestKeysResponse { keys, damaged: Vec::new() }))
    }
    async fn remove_manifest_key(
        &self,
        _: Request<v1::RemoveManifestKeyRequest>,
    ) -> Result<Response<v1::RemoveManifestKeyResponse>, Status> {
        Ok(Response::new(v1::RemoveManifestKeyResponse { existed: true }))
    }
    async fn add_manifest(
        &self,
        r: Request<v1::AddManifestRequest>,
    ) -> Result<Response<v1::AddManifestResponse>, Status> {
        let manifest = (r.get_ref().tenant == "acme").then(manifest);
        Ok(Response::new(v1::AddManifestResponse { added: true, manifest }))
    }
    async fn list_manifests(
        &self,
        r: Request<v1::ListManifestsRequest>,
    ) -> Result<Response<v1::ListManifestsResponse>, Status> {
        let mut one = manifest();
        if r.get_ref().tenant == "broken" {
            one.key.pop();
        }
        Ok(Response::new(v1::ListManifestsResponse { manifests: vec![one], damaged: Vec::new() }))
    }
    async fn revoke_manifest(
        &self,
        r: Request<v1::RevokeManifestRequest>,
    ) -> Result<Response<v1::RevokeManifestResponse>, Status> {
        let existed = r.get_ref().name == "web";
        let still_admitted = [("second", 2), ("", 1)]
            .map(|(manifest, measurements)| v1::StillAdmitted { manifest: manifest.into(), measurements });
        let still_admitted = still_admitted.into();
        Ok(Response::new(v1::RevokeManifestResponse {
            existed,
            revoked_through: 3,
            measurements: Some(4),
            still_admitted,
            signers: vec!["vendor".into()],
        }))
    }
    unanswered! {
        add_revocation: AddRevocationRequest => AddRevocationResponse,
        list_revocations: ListRevocationsRequest => ListRevocationsResponse,
        remove_revocation: RemoveRevocationRequest => RemoveRevocationResponse,
        list_guests: ListGuestsRequest => ListGuestsResponse,
        add_tenant: AddTenantRequest => AddTenantResponse,
        list_tenants: ListTenantsRequest => ListTenantsResponse,
        add_admin: AddAdminRequest => AddAdminResponse,
        list_admins: ListAdminsRequest => ListAdminsResponse,
        remove_admin: RemoveAdminRequest => RemoveAdminResponse,
        confirm_restored: ConfirmRestoredRequest => ConfirmRestoredResponse,
        get_secret_meta: GetSecretMetaRequest => GetSecretMetaResponse,
        undelete_secret: UndeleteSecretRequest => UndeleteSecretResponse,
        destroy_secret: DestroySecretRequest => DestroySecretResponse,
        update_secret: UpdateSecretRequest => UpdateSecretResponse,
        put_sealing_context: PutSealingContextRequest => PutSealingContextResponse,
        list_sealing_contexts: ListSealingContextsRequest => ListSealingContextsResponse,
        remove_sealing_context: RemoveSealingContextRequest => RemoveSealingContextResponse,
        list_volumes: ListVolumesRequest => ListVolumesResponse,
        allow_volume: AllowVolumeRequest => AllowVolumeResponse,
        put_certificate_profile: PutCertificateProfileRequest => PutCertificateProfileResponse,
        list_certificate_profiles: ListCertificateProfilesRequest => ListCertificateProfilesResponse,
        remove_certificate_profile: RemoveCertificateProfileRequest => RemoveCertificateProfileResponse,
        put_policy: PutPolicyRequest => PutPolicyResponse,
        get_policy: GetPolicyRequest => GetPolicyResponse,
        list_policies: ListPoliciesRequest => ListPoliciesResponse,
        remove_policy: RemovePolicyRequest => RemovePolicyResponse,
        test_policy: TestPolicyRequest => TestPolicyResponse,
        put_crl: PutCrlRequest => PutCrlResponse,
        list_crls: ListCrlsRequest => ListCrlsResponse,
        remove_crl: RemoveCrlRequest => RemoveCrlResponse,
        get_decision_input: GetDecisionInputRequest => GetDecisionInputResponse,
    }
    async fn audit(&self, r: Request<v1::AuditRequest>) -> Result<Response<v1::AuditResponse>, Status> {
        Ok(Response::new(v1::AuditResponse {
            lines: vec![r.get_ref().from_sequence().to_string()],
            ..v1::AuditResponse::default()
        }))
    }
}

/// A profile whose key the server behind its address admits.
async fn server() -> AdminProfile {
    let (broker, operator) = (Identity::generate("broker").unwrap(), Identity::generate("operator").unwrap());
    let tls = ServerTls::with_alpn(&broker, ClientRule::Spki(vec![operator.spki()]), ALPN_ADMIN).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(serve_pinned(
        TcpListenerStream::new(listener),
        tls,
        Routes::new(AdminServer::new(FakeAdmin::default())),
        ServeLimits::default(),
        std::future::pending(),
    ));
    AdminProfile { address, pins: vec![broker.spki()], identity: operator }
}

#[tokio::test]
async fn every_call_goes_there_and_back() {
    let admin = AdminClient::connect(&server().await).await.unwrap();
    let path = "kbs:///default/app/key".parse().unwrap();
    let value = SecretBox::new(Box::new(b"12345".to_vec()));
    let put = |expected| PutSecret {
        tenant: "acme",
        path: &path,
        value: &value,
        allow_simulated: Some(true),
        expected,
        policy: "",
        rules: None,
        labels: None,
        expires: Some(Expiry::At(UnixTime(1_900_000_000))),
    };
    let stored = admin.put_secret(put(Expected::Any)).await.unwrap();
    assert_eq!(
        (stored.now.version, stored.changes()),
        (
            5,
            vec![
                "version 5 after version 4".to_owned(),
                "policy default, was lax".to_owned(),
                "simulated evidence allowed, was not allowed".to_owned(),
            ]
        )
    );
    let new = Stored { before: None, now: Stated { version: 1, ..stored.now } };
    assert_eq!(new.changes(), ["version 1, created", "policy default", "simulated evidence allowed"]);
    let exists = admin.put_secret(put(Expected::Absent)).await.unwrap_err();
    assert!(
        matches!(&exists, ClientError::Rejected { code: Code::FailedPrecondition, message } if message == "secret exists at version 7\\n"),
        "{exists}"
    );
    let denied = admin.put_secret(put(Expected::Version(2))).await.unwrap_err();
    assert!(matches!(denied, ClientError::Refused { code, .. } if code == "role-missing"));
    assert_eq!(admin.list_secrets("acme", false).await.unwrap().rows[0].path, "acme");
    assert!(admin.delete_secret("acme", &path, None).await.unwrap());
    let reference = Reference {
        tenant: "acme".to_owned(),
        measurement: Measurement::new([1; 48]),
        workload: WorkloadDigest::new([2; 32]),
        name: "demo".to_owned(),
        expires: Expiry::Never,
    };
    assert!(admin.add_reference(&reference).await.unwrap());
    assert_eq!(admin.list_references("acme").await.unwrap().rows, vec![reference.clone()]);
    assert!(matches!(admin.list_references("broken").await, Err(ClientError::Protocol { .. })));
    assert!(!admin.remove_reference("acme", &reference.measurement, &reference.workload).await.unwrap());
    assert_eq!(admin.audit(5, 0).await.unwrap(), ["5"]);
}

#[tokio::test]
async fn signers_keys_and_manifests_go_there_and_back() {
    let admin = AdminClient::connect(&server().await).await.unwrap();
    let signer = Signer {
        tenant: "acme".into(),
        name: "releases".into(),
        rule: SignerRule {
            author_key: KeyDigest::new([1; 48]),
            family_id: FamilyId::new([2; 16]),
            image_id: ImageId::new([3; 16]),
            minimum_guest_svn: 4,
        },
        expires: Expiry::At(UnixTime(5)),
    };
    assert!(admin.add_signer(&signer).await.unwrap());
    assert_eq!(admin.list_signers("acme").await.unwrap().rows, [signer]);
    assert!(matches!(admin.list_signers("broken").await, Err(ClientError::Protocol { .. })));
    assert!(!admin.remove_signer("acme", "releases").await.unwrap());

    let spki = Identity::generate("manifest key").unwrap().spki();
    let key = ManifestKey { tenant: "acme".into(), name: "ci".into(), key: point() };
    assert!(admin.add_manifest_key(&key).await.unwrap());
    assert_eq!(admin.list_manifest_keys("acme").await.unwrap().rows, [key]);
    assert!(matches!(admin.list_manifest_keys("broken").await, Err(ClientError::Protocol { .. })));
    assert!(admin.remove_manifest_key("acme", &spki).await.unwrap());

    let (added, manifest) = admin.add_manifest("acme", vec![1]).await.unwrap();
    assert!(added);
    assert_eq!((manifest.sequence, manifest.key, manifest.measurements), (3, Some(SpkiDigest::new([4; 32])), 5));
    assert!(matches!(admin.add_manifest("other", vec![1]).await, Err(ClientError::Protocol { .. })));
    assert_eq!(admin.list_manifests("acme").await.unwrap().rows, [manifest]);
    assert!(matches!(admin.list_manifests("broken").await, Err(ClientError::Protocol { .. })));
    let still =
        |manifest: Option<&str>, measurements| StillAdmitted { manifest: manifest.map(Into::into), measurements };
    let still_admitted = vec![still(Some("second"), 2), still(None, 1)];
    let revoked = RevokedManifest { through: 3, measurements: Some(4), still_admitted, signers: vec!["vendor".into()] };
    assert_eq!(admin.revoke_manifest("acme", "web").await.unwrap(), Some(revoked));
    assert_eq!(admin.revoke_manifest("acme", "other").await.unwrap(), None);
}

/// The curve's base point.
fn point() -> P384PublicKey {
    let x = "aa87ca22be8b05378eb1c71ef320ad746e1d3b628ba79b9859f741e082542a385502f25dbf55296c3a545e3872760ab7";
    let y = "3617de4a96262c6f5d9e98bf9292dc29f8f41dbd289a147ce9da3113b5f0b8c00a60b1ce1d7e819d7a431d7c90ea0e5f";
    let number = |text: &str| *text.parse::<Measurement>().unwrap().as_bytes();
    P384PublicKey::from_point(number(x), number(y)).unwrap()
}

#[tokio::test]
async fn an_operator_whose_key_is_not_listed_is_refused() {
    let mut profile = server().await;
    profile.identity = Identity::generate("stranger").unwrap();
    let error = match AdminClient::connect(&profile).await {
        Ok(admin) => admin.audit(0, 0).await.unwrap_err(),
        Err(error) => error,
    };
    assert!(matches!(&error, ClientError::Refused { code, .. } if code == "key-not-admitted"), "{error:?}");
}

#[tokio::test]
async fn a_server_with_another_key_gets_no_request() {
    let mut profile = server().await;
    profile.pins = vec![SpkiDigest::new([9; 32])];
    assert!(matches!(AdminClient::connect(&profile).await.err(), Some(ClientError::PinMismatch { .. })));
}

#[tokio::test]
async fn a_broker_that_is_down_is_named() {
    let mut profile = server().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    profile.address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let error = AdminClient::connect(&profile).await.err().unwrap();
    assert!(matches!(&error, ClientError::Unreachable { cause } if cause.contains(&profile.address)), "{error}");
}

#[tokio::test]
async fn a_profile_file_comes_back_as_it_was_and_is_private() {
    let profile = server().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.toml");
    profile.write(&path).unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let again = AdminProfile::read(&path).unwrap();
    assert_eq!((&again.address, &again.pins), (&profile.address, &profile.pins));
    AdminClient::connect(&again).await.unwrap().audit(0, 0).await.unwrap();

    assert!(matches!(profile.write(&path), Err(ProfileError::File { .. })), "an existing file is not overwritten");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
    assert!(matches!(AdminProfile::read(&path), Err(ProfileError::Mode { mode: 0o640, .. })));
    assert!(matches!(AdminProfile::read(&folder.path().join("absent")), Err(ProfileError::File { .. })));
    assert!(matches!(AdminProfile::parse("address = 1"), Err(ProfileError::Malformed { .. })));
    let unknown = "address = 'a'\nserver_spki = '00'\ncertificate = ''\nkey = ''\nextra = 1";
    assert!(matches!(AdminProfile::parse(unknown), Err(ProfileError::Malformed { .. })));
    // The present key and the next: as many as a workload spec has.
    let one = std::fs::read_to_string(&path);
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    let one = one.unwrap();
    assert!(one.contains("server_spki = \""), "one pin is written as ever: {one}");
    for count in [0, 2, 3] {
        let pins = vec![SpkiDigest::new([9; 32]); count];
        AdminProfile { pins: pins.clone(), ..AdminProfile::read(&path).unwrap() }
            .replace(&folder.path().join("several"))
            .unwrap();
        match AdminProfile::read(&folder.path().join("several")) {
            Ok(read) => assert_eq!((count, read.pins), (2, pins)),
            Err(ProfileError::Pins { found }) => assert!(found == count && count != 2),
            Err(other) => panic!("{other:?}"),
        }
    }
}
