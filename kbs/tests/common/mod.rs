//! A key broker in this process, and simulated guests that reach it over TCP on the loopback.
#![allow(missing_docs, reason = "tests")]

#[path = "../../../tests/simulated_author.rs"]
mod simulated_author;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, atomic::AtomicI64},
};

pub use simulated_author::{Author, Key, installation, unix};

use coffer_guest::processor::SharedProcessor;
use coffer_kbs::{
    Addresses, AuditLog, Clock, ConfigFile, Intent, Kind, MemoryRows, Row, Rows, Server, State, begin_store,
    config_path, init, open_rows,
};
use coffer_kbs_client::{
    AdminClient, AdminProfile, BrokerClient, ClientError, Expected, PutSecret, Reference, ResourcePath, Signer, Stored,
};
use coffer_ratls::{Attester, AttesterError, Identity};
use coffer_simulator::{Installation, LaunchOptions, SecureProcessor};
use coffer_spec::{Document, KbsPin, SecretTarget, SecretWanted, Tee, WorkloadSpec};
use coffer_verifier::{
    Evidence, Expiry, SignerRule,
    abi::{FamilyId, ImageId, Measurement, ProductLine, ReportData, ReportRequest, SpkiDigest, WorkloadDigest},
    measure::PageType,
};
use secrecy::{ExposeSecret as _, SecretBox};
use tokio::{net::TcpStream, sync::oneshot, task::JoinHandle};

pub const TENANT: &str = "acme";
pub const PATH: &str = "kbs:///default/app/password";
pub const VALUE: &[u8] = b"correct horse battery staple";

/// Another chip of the same manufacturer.
pub fn other_chip() -> Installation {
    let mut stored: serde_json::Value = serde_json::from_slice(&installation().to_bytes().unwrap()).unwrap();
    stored["chip_secret"] = hex::encode([0x5c; 32]).into();
    Installation::from_bytes(stored.to_string().as_bytes()).unwrap()
}

pub fn anchor() -> SpkiDigest {
    installation().anchor(ProductLine::Milan).unwrap().spki
}

/// What is asked at each look at the clock, and gives what is to be done then, without the lock.
pub type AtClock = Arc<Mutex<Option<Box<dyn FnMut() -> Option<Box<dyn FnOnce() + Send>> + Send>>>>;

pub struct Kbs {
    pub folder: tempfile::TempDir,
    pub addresses: Addresses,
    pub lines: Arc<Mutex<Vec<String>>>,
    /// Added to the server's clock, in seconds.
    pub skew: Arc<AtomicI64>,
    /// Called once whenever the server looks at its clock: what happens there happens in the middle of things.
    pub at_clock: AtClock,
    /// Public-key operations evidence has taken.
    pub cost: Box<dyn Fn() -> coffer_verifier::Cost + Send + Sync>,
    reload: coffer_kbs::Reload,
    pub rotation: coffer_kbs::Rotation,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Kbs {
    /// A broker that lists the simulated root for the tenant.
    pub async fn start() -> Self {
        Self::start_with(|config| {
            config.tenants.entry(TENANT.into()).or_default().simulated_anchors = vec![anchor().to_string()];
        })
        .await
    }

    pub async fn start_with(change: impl FnOnce(&mut ConfigFile)) -> Self {
        Self::start_at(change, async |state| State::open(state).await.unwrap()).await
    }

    /// A broker whose rows lie in memory, and pass through `around`.
    pub async fn start_in_memory(around: impl FnOnce(Arc<dyn Rows>) -> Arc<dyn Rows>) -> Self {
        let list = |config: &mut ConfigFile| {
            config.tenants.entry(TENANT.into()).or_default().simulated_anchors = vec![anchor().to_string()];
        };
        Self::start_at(list, async |state| {
            let rows: Arc<dyn Rows> = Arc::new(MemoryRows::default());
            begin_store(state, rows.clone()).await.unwrap();
            State::open_with(state, around(rows)).await.unwrap()
        })
        .await
    }

    async fn start_at(change: impl FnOnce(&mut ConfigFile), open: impl AsyncFnOnce(&Path) -> State) -> Self {
        let folder = tempfile::tempdir().unwrap();
        init(&folder.path().join("state"), "127.0.0.1:0", "127.0.0.1:0").await.unwrap();
        Self::start_in(folder, change, open).await
    }

    /// A broker of a state folder that is there, as `state` in `folder`.
    pub async fn start_in(
        folder: tempfile::TempDir,
        change: impl FnOnce(&mut ConfigFile),
        open: impl AsyncFnOnce(&Path) -> State,
    ) -> Self {
        // Another test of this process may have done it.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let state = folder.path().join("state");
        let mut file = ConfigFile::read(&config_path(&state)).unwrap();
        change(&mut file);
        let config = file.resolve(folder.path()).unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (sink, skew) = (lines.clone(), Arc::new(AtomicI64::new(0)));
        let log = AuditLog::new(move |line| sink.lock().unwrap().push(line.to_owned()));
        let offset = skew.clone();
        let at_clock = AtClock::default();
        let called = at_clock.clone();
        let clock = Clock::new(move || {
            let call = called.lock().unwrap().as_mut().and_then(|call| call());
            if let Some(call) = call {
                call();
            }
            i64::try_from(unix()).unwrap() + offset.load(std::sync::atomic::Ordering::Relaxed)
        });
        let server = Server::bind(open(&state).await, config, log, clock).await.unwrap();
        let addresses = server.addresses();
        let cost = Box::new(server.evidence_cost());
        let reload = server.reload();
        let rotation = server.rotation();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            Box::pin(server.run(async {
                let _ = stopped.await;
            }))
            .await
            .unwrap();
        });
        Self { folder, addresses, lines, skew, at_clock, cost, reload, rotation, stop: Some(stop), task }
    }

    pub async fn stop(mut self) -> tempfile::TempDir {
        let _ = self.stop.take().unwrap().send(());
        self.task.await.unwrap();
        self.folder
    }

    /// Stops it, and gives the number of strangers' refusals its trail stands for.
    pub async fn stop_and_count(self) -> u64 {
        let lines = self.lines.clone();
        self.stop().await;
        let lines = lines.lock().unwrap();
        let parsed = lines.iter().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        parsed.filter_map(|line| line["count"].as_u64()).sum()
    }

    /// What SIGHUP does, with a configuration made from the one `init` wrote.
    pub async fn reload(&self, change: impl FnOnce(&mut ConfigFile)) {
        self.try_reload(change).await.unwrap();
    }

    pub async fn try_reload(
        &self,
        change: impl FnOnce(&mut ConfigFile),
    ) -> Result<Vec<&'static str>, coffer_kbs::ReloadError> {
        let mut file = ConfigFile::read(&config_path(&self.state())).unwrap();
        change(&mut file);
        self.reload.apply(file.resolve(self.folder.path()).unwrap()).await
    }

    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub async fn admin(&self) -> AdminClient {
        AdminClient::connect(&AdminProfile::read(&self.state().join("admin.toml")).unwrap()).await.unwrap()
    }

    pub async fn put(&self, path: &str, allow_simulated: bool) -> u64 {
        self.put_under(path, allow_simulated, "").await.unwrap().now.version
    }

    pub async fn put_under(&self, path: &str, allow_simulated: bool, policy: &str) -> Result<Stored, ClientError> {
        let value = SecretBox::new(Box::new(VALUE.to_vec()));
        let path: ResourcePath = path.parse().unwrap();
        let allow_simulated = Some(allow_simulated);
        let put = PutSecret { allow_simulated, policy, ..put(&path, &value) };
        self.admin().await.put_secret(put).await
    }

    pub async fn admit(&self, measurement: Measurement, workload: WorkloadDigest) {
        self.admit_until(measurement, workload, Expiry::Never).await;
    }

    pub async fn admit_until(&self, measurement: Measurement, workload: WorkloadDigest, expires: Expiry) {
        let reference = Reference { tenant: TENANT.into(), measurement, workload, name: "test".into(), expires };
        self.admin().await.add_reference(&reference).await.unwrap();
    }

    pub async fn connect(&self, attester: Arc<dyn Attester>) -> Result<BrokerClient, ClientError> {
        let stream = TcpStream::connect(self.addresses.listen).await.unwrap();
        let identity = Identity::generate("guest").unwrap();
        BrokerClient::connect(stream, &identity, TENANT, vec![self.addresses.pin], attester).await
    }

    /// The audit line that carries the id of a refusal.
    /// The line of an answer, or the one it was summed in, which takes a moment.
    pub fn line_of(&self, id: &str) -> serde_json::Value {
        let start = std::time::Instant::now();
        loop {
            let lines = self.lines.lock().unwrap();
            if let Some(line) = lines.iter().find(|line| line.contains(&format!("\"{id}\""))) {
                return serde_json::from_str(line).unwrap();
            }
            assert!(start.elapsed().as_secs() < 60, "no line with id {id} in {lines:#?}");
            drop(lines);
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    /// What somebody with write access to the database can do to the rows of a kind.
    pub async fn tamper(&self, kind: Kind, edit: impl FnOnce(&mut Vec<(Vec<u8>, Row)>)) {
        tamper(&self.state(), kind, edit).await;
    }
}

/// What chance begins with: `COFFER_SEED`, or another each time, printed.
pub fn seed() -> u64 {
    let given = std::env::var("COFFER_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(|| unix() ^ u64::from(std::process::id()));
    eprintln!("COFFER_SEED={seed}");
    seed
}

/// Numbers below an end that a seed gives again (SplitMix64).
pub fn random(seed: u64) -> impl FnMut(usize) -> usize + Send {
    let mut state = seed;
    move |end| {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((z ^ (z >> 31)) % end.max(1) as u64).unwrap()
    }
}

/// How often something is killed: `COFFER_KILLS` for more.
pub fn rounds(usual: usize) -> usize {
    std::env::var("COFFER_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// A value for a path, and nothing said beside.
pub fn put<'a>(path: &'a ResourcePath, value: &'a SecretBox<Vec<u8>>) -> PutSecret<'a> {
    PutSecret {
        tenant: TENANT,
        path,
        value,
        allow_simulated: None,
        expected: Expected::Any,
        policy: "",
        rules: None,
        labels: None,
        expires: None,
    }
}

pub async fn tamper(state: &Path, kind: Kind, edit: impl FnOnce(&mut Vec<(Vec<u8>, Row)>)) {
    let mut transaction = open_rows(state).await.unwrap().begin(Intent::Write).await.unwrap();
    let before = transaction.from(kind, &[], usize::MAX).await.unwrap();
    let mut after = before.clone();
    edit(&mut after);
    assert!(before != after, "nothing was changed among {} rows", before.len());
    for (key, _) in before {
        transaction.remove(kind, &key).await.unwrap();
    }
    for (key, row) in after {
        transaction.put(kind, &key, row).await.unwrap();
    }
    transaction.commit().await.unwrap();
}

/// Changes one byte near the end of every row, where what people mean by it stands.
pub fn edit_all(rows: &mut Vec<(Vec<u8>, Row)>) {
    for (_, row) in rows {
        let end = row.body.len() - 1;
        row.body[end] ^= 1;
    }
}

/// A guest of the simulator.
pub struct Guest {
    /// As the agent shares it.
    pub processor: SharedProcessor,
    pub document: Document,
    pub measurement: Measurement,
    /// Every evidence it made.
    pub made: Mutex<Vec<Evidence>>,
}

#[derive(Clone)]
pub struct Launch {
    pub platform: u8,
    pub policy: u64,
    pub id: Option<Author>,
    pub spec: WorkloadSpec,
}

impl Kbs {
    /// Lists the usual author, from the first SVN on.
    pub async fn list_author(&self) {
        let id = Author::default();
        let rule = SignerRule {
            author_key: Key::new(id.key).author_digest(),
            family_id: FamilyId::new(id.family_id),
            image_id: ImageId::new(id.image_id),
            minimum_guest_svn: 1,
        };
        let signer = Signer { tenant: TENANT.into(), name: "releases".into(), rule, expires: Expiry::Never };
        self.admin().await.add_signer(&signer).await.unwrap();
    }
}

impl Default for Launch {
    fn default() -> Self {
        Self { platform: 1, policy: 0x3_0000, id: None, spec: spec(&[PATH]) }
    }
}

impl Guest {
    pub fn launch(launch: &Launch) -> Arc<Self> {
        Self::launch_with(launch, LaunchOptions::new(ProductLine::Milan, unix()))
    }

    pub fn launch_with(launch: &Launch, options: LaunchOptions) -> Arc<Self> {
        Self::launch_on(installation(), launch, options)
    }

    pub fn launch_on(installation: &Installation, launch: &Launch, options: LaunchOptions) -> Arc<Self> {
        let document = Document::write(&launch.spec).unwrap();
        let options = LaunchOptions { policy: launch.policy, ..options };
        let mut processor = SecureProcessor::launch_start(installation, options).unwrap();
        processor.update(PageType::Normal, 0x10_0000, &[launch.platform; 4096]).unwrap();
        let id = launch.id.as_ref().map(|id| id.sign(processor.digest(), launch.policy));
        let guest = processor.finish(document.digest().host_data(), id.as_ref()).unwrap();
        let measurement = guest.measurement();
        let processor: Box<dyn coffer_verifier::abi::SecureProcessor> = Box::new(guest.into_processor());
        Arc::new(Self { processor: Arc::new(Mutex::new(processor)), document, measurement, made: Mutex::default() })
    }

    pub fn usual() -> Arc<Self> {
        Self::launch(&Launch::default())
    }
}

impl Guest {
    /// CHIP_ID of what it runs on.
    pub fn chip(&self) -> String {
        let evidence = self.evidence(&ReportData::new([0; 64])).unwrap();
        coffer_verifier::abi::Report::parse(&evidence.report).unwrap().chip_id().to_string()
    }
}

impl Attester for Guest {
    fn evidence(&self, report_data: &ReportData) -> Result<Evidence, AttesterError> {
        let extended = self.processor.lock().unwrap().report(&ReportRequest::new(*report_data))?;
        let evidence = Evidence {
            report: extended.report,
            cert_table: extended.cert_table,
            crls: Vec::new(),
            workload_spec: self.document.bytes().to_vec(),
        };
        self.made.lock().unwrap().push(evidence.clone());
        Ok(evidence)
    }

    fn workload(&self) -> WorkloadDigest {
        self.document.digest()
    }
}

/// Whoever recorded evidence and shows it again.
pub struct Replay(pub Evidence);

impl Attester for Replay {
    fn evidence(&self, _: &ReportData) -> Result<Evidence, AttesterError> {
        Ok(self.0.clone())
    }

    fn workload(&self) -> WorkloadDigest {
        WorkloadDigest::of(&self.0.workload_spec)
    }
}

pub fn spec(secrets: &[&str]) -> WorkloadSpec {
    let wanted = |(at, path): (usize, &&str)| {
        let file = SecretTarget::File(coffer_spec::sample::name(&format!("s{at}")));
        SecretWanted::new(path.parse().unwrap(), file)
    };
    WorkloadSpec {
        tenant: TENANT.parse().unwrap(),
        kbs: Some(KbsPin { address: "127.0.0.1:1".into(), spki: vec![SpkiDigest::new([9; 32])] }),
        secrets: secrets.iter().enumerate().map(wanted).collect(),
        ..coffer_spec::sample::workload(Tee::Simulated)
    }
}

pub async fn ask(client: &BrokerClient, path: &str) -> Result<Vec<u8>, ClientError> {
    let secret = client.secret(&path.parse().unwrap()).await?;
    Ok(secret.value.expose_secret().clone())
}

/// Id of a refusal that looks as every refusal must.
pub fn refused<T>(result: Result<T, ClientError>) -> String {
    match result {
        Err(ClientError::Refused { code, id }) => {
            assert_eq!(code, "not-released");
            id
        }
        Err(other) => panic!("expected not-released, found {other:?}"),
        Ok(_) => panic!("released"),
    }
}

/// Code with which a connection was refused.
pub fn not_admitted<T>(result: Result<T, ClientError>) -> String {
    match result {
        Err(ClientError::Refused { code, .. }) => code,
        Err(other) => panic!("expected a refusal, found {other:?}"),
        Ok(_) => panic!("admitted"),
    }
}

pub fn has_reason(line: &serde_json::Value, word: &str) -> bool {
    line["reasons"].as_array().is_some_and(|all| all.iter().any(|one| one.as_str().is_some_and(|s| s.contains(word))))
}

pub type RawAdmin = coffer_kbs_client::kbs::admin::v1::admin_client::AdminClient<tonic::transport::Channel>;

/// Calls the method of a request, by its name and as it travels.
pub async fn admin_call(admin: &RawAdmin, request: &str, bytes: &[u8]) -> Result<(), tonic::Status> {
    let mut admin = admin.clone();
    macro_rules! calls {
        ($($name:ident => $method:ident),* $(,)?) => {
            match request {
                $(stringify!($name) => {
                    admin.$method(<coffer_kbs_client::kbs::admin::v1::$name as prost::Message>::decode(bytes).unwrap()).await.map(|_| ())
                })*
                other => panic!("{other} has no call here: add it, and a good one in fields.rs"),
            }
        };
    }
    calls!(
        PutSecretRequest => put_secret,
        ListSecretsRequest => list_secrets,
        GetSecretMetaRequest => get_secret_meta,
        UpdateSecretRequest => update_secret,
        DeleteSecretRequest => delete_secret,
        UndeleteSecretRequest => undelete_secret,
        DestroySecretRequest => destroy_secret,
        PutSealingContextRequest => put_sealing_context,
        ListSealingContextsRequest => list_sealing_contexts,
        RemoveSealingContextRequest => remove_sealing_context,
        ListVolumesRequest => list_volumes,
        AllowVolumeRequest => allow_volume,
        PutCertificateProfileRequest => put_certificate_profile,
        ListCertificateProfilesRequest => list_certificate_profiles,
        RemoveCertificateProfileRequest => remove_certificate_profile,
        AddReferenceRequest => add_reference,
        ListReferencesRequest => list_references,
        RemoveReferenceRequest => remove_reference,
        AddSignerRequest => add_signer,
        ListSignersRequest => list_signers,
        RemoveSignerRequest => remove_signer,
        AddManifestKeyRequest => add_manifest_key,
        ListManifestKeysRequest => list_manifest_keys,
        RemoveManifestKeyRequest => remove_manifest_key,
        AddManifestRequest => add_manifest,
        ListManifestsRequest => list_manifests,
        RevokeManifestRequest => revoke_manifest,
        AddRevocationRequest => add_revocation,
        ListRevocationsRequest => list_revocations,
        RemoveRevocationRequest => remove_revocation,
        ListGuestsRequest => list_guests,
        PutPolicyRequest => put_policy,
        GetPolicyRequest => get_policy,
        ListPoliciesRequest => list_policies,
        RemovePolicyRequest => remove_policy,
        TestPolicyRequest => test_policy,
        PutCrlRequest => put_crl,
        ListCrlsRequest => list_crls,
        RemoveCrlRequest => remove_crl,
        AddTenantRequest => add_tenant,
        ListTenantsRequest => list_tenants,
        AddAdminRequest => add_admin,
        ListAdminsRequest => list_admins,
        RemoveAdminRequest => remove_admin,
        ConfirmRestoredRequest => confirm_restored,
        AuditRequest => audit,
        GetDecisionInputRequest => get_decision_input,
    )
}

/// The rows of a kind as they lie there.
pub async fn rows(state: &Path, kind: Kind) -> Vec<(Vec<u8>, Row)> {
    open_rows(state).await.unwrap().begin(Intent::Read).await.unwrap().from(kind, &[], usize::MAX).await.unwrap()
}

/// Revocation list of the simulated root, of so many days from now: its number grows daily.
pub fn crl(days: u64) -> Vec<u8> {
    installation().crl(ProductLine::Milan, unix() + days * 86_400).unwrap()
}

/// One that has been out of date for some days.
pub fn old_crl() -> Vec<u8> {
    installation().crl(ProductLine::Milan, unix() - 50 * 86_400).unwrap()
}

/// Certificate of the simulated root.
pub fn ark() -> Vec<u8> {
    use coffer_verifier::abi::{CertKind, CertTable};
    let evidence = Guest::usual().evidence(&ReportData::new([0; 64])).unwrap();
    let table = CertTable::parse(&evidence.cert_table).unwrap();
    table.find(CertKind::Ark).unwrap().to_vec()
}
