//! What guests sealed, with the agent's own code, a simulated secure processor and this broker: where it opens, and by which name
//! it is refused everywhere else.

use std::sync::Arc;

use coffer_guest::sealing::{Counter, Means, SealingError, Unsealed};
use coffer_kbs_client::{BrokerClient, ClientError, SealingContext, kbs::admin::v1::Terms};
use coffer_ratls::Identity;
use coffer_seal::{Header, Scope, SealError, SealPolicy};
use coffer_simulator::{Installation, LaunchOptions, TcbState};
use coffer_spec::{Floors, SealFloors, Tenant};
use coffer_verifier::{
    Expiry,
    abi::{ProductLine, TcbVersion},
    manifest::Contents,
};
use tokio::net::TcpStream;

use crate::common::{self, Author, Guest, Kbs, Launch, PATH, TENANT, has_reason, installation, spec, unix};
use crate::trust::{MANIFEST_KEY, add, contents, list_key, sign};

pub(crate) const CONTEXT: &[u8] = b"db";
const STATE: &[u8] = b"the state of a workload";

/// A broker with terms for a context, and an author whose launches may have keys of policy `signer`.
pub(crate) async fn broker() -> Kbs {
    let kbs = Kbs::start().await;
    put_context(&kbs, TENANT, CONTEXT).await;
    kbs.list_author().await;
    kbs
}

async fn put_context(kbs: &Kbs, tenant: &str, context: &[u8]) {
    let context = SealingContext {
        tenant: tenant.into(),
        context: context.to_vec(),
        policies: ["chip", "measurement", "workload", "signer"].map(str::to_owned).to_vec(),
        terms: Some(Terms { allow_simulated: true, policy: None, rules: None }),
        created_unix: 0,
    };
    kbs.admin().await.put_sealing_context(context).await.unwrap();
}

/// A running guest with its connection to the broker.
pub(crate) struct Sealing {
    guest: Arc<Guest>,
    client: BrokerClient,
}

/// A launch that an author signed, so that every policy has a subject.
pub(crate) fn usual() -> Launch {
    Launch { id: Some(Author::default()), ..Launch::default() }
}

fn options() -> LaunchOptions {
    LaunchOptions::new(ProductLine::Milan, unix())
}

impl Sealing {
    pub(crate) async fn start(kbs: &Kbs, launch: &Launch) -> Self {
        Self::start_on(kbs, installation(), launch, options()).await
    }

    /// Launches, has the tenant admit the pair, and connects.
    async fn start_on(kbs: &Kbs, chip: &Installation, launch: &Launch, options: LaunchOptions) -> Self {
        let guest = Guest::launch_on(chip, launch, options);
        let tenant = launch.spec.tenant.as_str();
        let reference = coffer_kbs_client::Reference {
            tenant: tenant.into(),
            measurement: guest.measurement,
            workload: guest.document.digest(),
            name: "test".into(),
            expires: Expiry::Never,
        };
        kbs.admin().await.add_reference(&reference).await.unwrap();
        Self::connect(kbs, guest).await.unwrap()
    }

    async fn connect(kbs: &Kbs, guest: Arc<Guest>) -> Result<Self, ClientError> {
        let stream = TcpStream::connect(kbs.addresses.listen).await.unwrap();
        let (identity, pins) = (Identity::generate("guest").unwrap(), vec![kbs.addresses.pin]);
        let tenant = guest.document.spec().tenant.as_str().to_owned();
        let client = BrokerClient::connect(stream, &identity, &tenant, pins, guest.clone()).await?;
        Ok(Self { guest, client })
    }

    pub(crate) fn means(&self, scope: Scope) -> Means<'_> {
        let (processor, spec) = (&self.guest.processor, self.guest.document.spec());
        Means { processor, spec, broker: Some(&self.client), scope }
    }

    async fn seal(&self, policy: SealPolicy) -> Vec<u8> {
        let sealed = self.means(Scope::Agent).seal(policy, CONTEXT, Counter::None, STATE).await.unwrap();
        assert!(!sealed.rollback_protected);
        sealed.bytes
    }

    async fn unseal(&self, sealed: &[u8]) -> Result<Unsealed, SealingError> {
        self.means(Scope::Agent).unseal(CONTEXT, sealed).await
    }

    async fn opens(&self, sealed: &[u8]) -> bool {
        match self.unseal(sealed).await {
            Ok(opened) => {
                assert_eq!(*opened.plaintext, STATE);
                true
            }
            Err(SealingError::Seal(SealError::Closed)) => false,
            Err(other) => panic!("neither opened nor closed: {other}"),
        }
    }
}

/// Id of the broker's refusal, which names the policy.
fn not_released<T>(result: Result<T, SealingError>, policy: SealPolicy) -> String {
    match result {
        Err(SealingError::Broker { policy: named, cause: ClientError::Refused { code, id } }) => {
            assert_eq!((named, code.as_str()), (policy, "not-released"));
            id
        }
        Err(other) => panic!("expected not-released, found {other}"),
        Ok(_) => panic!("released"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_policy_opens_where_the_norm_says_and_nowhere_else() {
    use SealPolicy::{Chip, Measurement, MeasurementAndChip, Signer, Workload};
    let kbs = broker().await;
    let sealer = Sealing::start(&kbs, &usual()).await;
    let mut sealed = Vec::new();
    for policy in SealPolicy::ALL {
        let file = sealer.seal(policy).await;
        assert_eq!(Header::peek(&file).unwrap().policy, policy);
        sealed.push((policy, file));
    }
    let elsewhere = async |name: &str, guest: Sealing, opening: &[SealPolicy]| {
        for (policy, file) in &sealed {
            // An older signed launch asks for a key above its own SVN, and gets none.
            if *policy == Signer && name == "downgraded" {
                let line = kbs.line_of(&not_released(guest.unseal(file).await, Signer));
                assert!(has_reason(&line, "found svn 4, asked for a key of svn 5"), "{line}");
                continue;
            }
            if *policy == Signer && name == "unsigned" {
                not_released(guest.unseal(file).await, Signer);
                continue;
            }
            assert_eq!(guest.opens(file).await, opening.contains(policy), "{name}: {policy}");
        }
    };
    elsewhere("restarted", Sealing::start(&kbs, &usual()).await, &SealPolicy::ALL).await;
    let other = other_spec();
    let upgraded = Launch { platform: 2, id: Some(Author { guest_svn: 6, ..Author::default() }), ..Launch::default() };
    elsewhere("upgraded", Sealing::start(&kbs, &upgraded).await, &[Chip, Workload, Signer]).await;
    let changed = Launch { spec: other, ..usual() };
    elsewhere(
        "another workload",
        Sealing::start(&kbs, &changed).await,
        &[MeasurementAndChip, Chip, Measurement, Signer],
    )
    .await;
    let chip = common::other_chip();
    elsewhere(
        "another chip",
        Sealing::start_on(&kbs, &chip, &usual(), options()).await,
        &[Measurement, Workload, Signer],
    )
    .await;
    let downgraded = Launch { id: Some(Author { guest_svn: 4, ..Author::default() }), ..Launch::default() };
    elsewhere(
        "downgraded",
        Sealing::start(&kbs, &downgraded).await,
        &[MeasurementAndChip, Chip, Measurement, Workload],
    )
    .await;
    let unsigned = Launch::default();
    elsewhere("unsigned", Sealing::start(&kbs, &unsigned).await, &[MeasurementAndChip, Chip, Measurement, Workload])
        .await;
}

pub(crate) fn other_spec() -> coffer_spec::WorkloadSpec {
    let mut changed = spec(&[PATH]);
    changed.process.argv = vec!["/bin/sh".into()];
    changed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_tenant_and_another_context_open_nothing() {
    let kbs = broker().await;
    assert!(kbs.admin().await.add_tenant("other").await.unwrap());
    put_context(&kbs, "other", CONTEXT).await;
    put_context(&kbs, TENANT, b"another").await;
    kbs.reload(|config| {
        for tenant in [TENANT, "other"] {
            config.tenants.entry(tenant.into()).or_default().simulated_anchors = vec![common::anchor().to_string()];
        }
    })
    .await;
    let sealer = Sealing::start(&kbs, &usual()).await;
    let tenant: Tenant = "other".parse().unwrap();
    let foreign = Launch { spec: coffer_spec::WorkloadSpec { tenant, ..spec(&[PATH]) }, id: None, ..usual() };
    let foreign = Sealing::start(&kbs, &foreign).await;
    assert_eq!(foreign.guest.measurement, sealer.guest.measurement, "on the same platform");
    for policy in SealPolicy::ALL {
        let file = sealer.seal(policy).await;
        for context in [&b"another"[..], b"dB"] {
            let refused = sealer.means(Scope::Agent).unseal(context, &file).await.err().unwrap();
            match refused {
                SealingError::Seal(SealError::Closed) => {}
                SealingError::Broker { .. } => assert_eq!(context, b"dB", "a context without terms"),
                other => panic!("{policy}: {other}"),
            }
        }
        match policy {
            // The tenant stands in the spec, whose digest stands in what a real launch measures; this launch's does not.
            SealPolicy::MeasurementAndChip => {}
            SealPolicy::Signer => drop(not_released(foreign.unseal(&file).await, policy)),
            _ => assert!(!foreign.opens(&file).await, "{policy}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_admitted_any_more_gets_no_key_and_the_trail_says_why() {
    let kbs = broker().await;
    let sealer = Sealing::start(&kbs, &Launch::default()).await;
    let policies = [SealPolicy::Chip, SealPolicy::Measurement, SealPolicy::Workload];
    let mut sealed = Vec::new();
    for policy in policies {
        sealed.push(sealer.seal(policy).await);
    }
    let own = sealer.seal(SealPolicy::MeasurementAndChip).await;
    let digest = sealer.guest.document.digest();
    assert!(kbs.admin().await.remove_reference(TENANT, &sealer.guest.measurement, &digest).await.unwrap());
    let line = kbs.line_of(&not_released(sealer.unseal(&sealed[0]).await, policies[0]));
    assert!(has_reason(&line, "measurement-and-workload: "), "{line}");
    for (policy, file) in policies.into_iter().zip(&sealed) {
        not_released(sealer.unseal(file).await, policy);
        not_released(sealer.means(Scope::Agent).seal(policy, CONTEXT, Counter::None, STATE).await, policy);
    }
    assert!(sealer.opens(&own).await, "which needs no broker");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_debug_twin_a_low_tcb_and_a_missing_broker_are_refused_by_name() {
    let kbs = broker().await;
    let sealer = Sealing::start(&kbs, &usual()).await;
    let debugged = Guest::launch(&Launch { policy: 0xb_0000, ..usual() });
    assert_eq!(debugged.measurement, sealer.guest.measurement, "but for its policy it is the same");
    let tcb = |snp| TcbState::all(TcbVersion { snp, ..options().tcb.committed });
    let old = LaunchOptions { tcb: tcb(1), ..options() };
    let old = Sealing::start_on(&kbs, installation(), &usual(), old).await;
    let floor = hex::encode(options().tcb.committed.to_raw().to_le_bytes());
    let floors = Floors { seal: SealFloors { min_tcb: floor }, ..Floors::default() };
    let strict =
        Sealing::start(&kbs, &Launch { spec: coffer_spec::WorkloadSpec { floors, ..spec(&[PATH]) }, ..usual() }).await;
    for policy in SealPolicy::ALL {
        let file = sealer.seal(policy).await;
        let (processor, spec) = (&debugged.processor, debugged.document.spec());
        let twin = Means { processor, spec, broker: Some(&sealer.client), scope: Scope::Agent };
        for refused in
            [twin.unseal(CONTEXT, &file).await.err(), twin.seal(policy, CONTEXT, Counter::None, STATE).await.err()]
        {
            assert!(matches!(refused, Some(SealingError::Seal(SealError::Unsafe { .. }))), "{policy}");
        }
        let low = old.seal(policy).await;
        let refused = strict.unseal(&low).await.err();
        assert!(matches!(refused, Some(SealingError::Seal(SealError::Floor { .. }))), "{policy}");
        let alone = Means { broker: None, ..sealer.means(Scope::Agent) };
        match alone.unseal(CONTEXT, &file).await {
            Ok(_) => assert_eq!(policy, SealPolicy::MeasurementAndChip),
            Err(SealingError::NoBroker { policy: named }) => assert_eq!(named, policy),
            Err(other) => panic!("{policy}: {other}"),
        }
    }
    for context in [&b""[..], &[b'x'; 129]] {
        let refused =
            sealer.means(Scope::Agent).seal(SealPolicy::Chip, context, Counter::None, STATE).await.unwrap_err();
        assert!(matches!(refused, SealingError::Context { policy: SealPolicy::Chip, .. }), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_files_do_not_open() {
    let kbs = broker().await;
    let sealer = Sealing::start(&kbs, &usual()).await;
    let long = vec![7; 3 * coffer_seal::CHUNK];
    for policy in SealPolicy::ALL {
        let seal = async || sealer.means(Scope::Agent).seal(policy, CONTEXT, Counter::None, &long).await.unwrap().bytes;
        let (one, two) = (seal().await, seal().await);
        let piece = coffer_seal::CHUNK + coffer_seal::TAG;
        let (header, body) = one.split_at(coffer_seal::HEADER);
        let chunk = |file: &[u8], at: usize| file[coffer_seal::HEADER + at * piece..][..piece].to_vec();
        let files = [
            ("swapped header", [&two[..coffer_seal::HEADER], body].concat()),
            ("truncated", one[..one.len() - piece].to_vec()),
            ("cut inside a chunk", one[..one.len() - 1].to_vec()),
            ("reordered", [header, &chunk(&one, 1), &chunk(&one, 0), &chunk(&one, 2)].concat()),
            ("spliced", [header, &chunk(&one, 0), &chunk(&two, 1), &chunk(&one, 2)].concat()),
            ("appended", [&one[..], &[0]].concat()),
        ];
        for (name, file) in files {
            let refused = sealer.unseal(&file).await.err();
            assert!(matches!(refused, Some(SealingError::Seal(SealError::Closed))), "{policy}: {name}");
        }
        assert!(sealer.unseal(&one).await.is_ok());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_was_replaced_does_not_open_any_more() {
    let kbs = broker().await;
    let sealer = Sealing::start(&kbs, &usual()).await;
    let means = sealer.means(Scope::Agent);
    for policy in SealPolicy::ALL.into_iter().filter(|policy| policy.source().needs_broker()) {
        let first = means.seal(policy, CONTEXT, Counter::Begin, STATE).await.unwrap();
        let beside = means.seal(policy, CONTEXT, Counter::Begin, STATE).await.unwrap();
        assert!(first.rollback_protected && sealer.unseal(&first.bytes).await.unwrap().rollback_protected);
        let second = means.seal(policy, CONTEXT, Counter::Replace(&first.bytes), b"newer").await.unwrap();
        assert_eq!(*sealer.unseal(&second.bytes).await.unwrap().plaintext, b"newer");
        let refused = sealer.unseal(&first.bytes).await.err();
        assert!(matches!(refused, Some(SealingError::Seal(SealError::Older { found: 1, current: 2 }))), "{policy}");
        let again = means.seal(policy, CONTEXT, Counter::Replace(&first.bytes), b"other").await.unwrap_err();
        assert!(matches!(again, SealingError::Seal(SealError::Older { found: 1, current: 2 })), "{policy}: {again}");
        assert!(sealer.opens(&beside.bytes).await, "{policy}: a line of its own");
        // Whoever stores the files points at another's counter, to have that one moved.
        let mut forged = second.bytes.clone();
        forged[92..108].copy_from_slice(&beside.bytes[92..108]);
        forged[115] = 1;
        let refused = means.seal(policy, CONTEXT, Counter::Replace(&forged), b"x").await.unwrap_err();
        assert!(matches!(refused, SealingError::Seal(SealError::Closed)), "{policy}: {refused}");
        assert!(sealer.opens(&beside.bytes).await, "{policy}: untouched");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resealing_changes_the_policy_and_carries_the_counter_on() {
    let kbs = broker().await;
    let sealer = Sealing::start(&kbs, &usual()).await;
    let means = sealer.means(Scope::Agent);
    for policy in SealPolicy::ALL {
        let file = sealer.seal(SealPolicy::MeasurementAndChip).await;
        let moved = means.reseal(Some(policy), CONTEXT, &file).await.unwrap();
        assert_eq!(Header::peek(&moved.bytes).unwrap().policy, policy);
        assert!(sealer.opens(&moved.bytes).await && sealer.opens(&file).await, "{policy}: the old one stays");
        let again = means.reseal(None, CONTEXT, &moved.bytes).await.unwrap();
        assert_eq!(Header::peek(&again.bytes).unwrap().policy, policy);
        assert!(again.bytes != moved.bytes && !again.rollback_protected);
    }
    let counted = means.seal(SealPolicy::Measurement, CONTEXT, Counter::Begin, STATE).await.unwrap();
    let refused = means.reseal(Some(SealPolicy::MeasurementAndChip), CONTEXT, &counted.bytes).await.unwrap_err();
    assert!(matches!(refused, SealingError::CounterLost { .. }), "{refused}");
    for policy in [None, Some(SealPolicy::Workload)] {
        let before = means.seal(SealPolicy::Measurement, CONTEXT, Counter::Begin, STATE).await.unwrap();
        let after = means.reseal(policy, CONTEXT, &before.bytes).await.unwrap();
        assert!(after.rollback_protected && sealer.opens(&after.bytes).await);
        let refused = sealer.unseal(&before.bytes).await.err();
        assert!(matches!(refused, Some(SealingError::Seal(SealError::Older { found: 1, current: 2 }))));
        let twice = means.reseal(policy, CONTEXT, &before.bytes).await.unwrap_err();
        assert!(matches!(twice, SealingError::Seal(SealError::Older { .. })), "{twice}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resealing_takes_a_file_to_the_firmware_of_today() {
    let kbs = broker().await;
    let at = |snp| LaunchOptions { tcb: TcbState::all(TcbVersion { snp, ..options().tcb.committed }), ..options() };
    let old = Sealing::start_on(&kbs, installation(), &usual(), at(5)).await;
    let updated = Sealing::start_on(&kbs, installation(), &usual(), at(6)).await;
    let file = old.seal(SealPolicy::MeasurementAndChip).await;
    let file = updated.means(Scope::Agent).reseal(None, CONTEXT, &file).await.unwrap().bytes;
    assert_eq!(Header::peek(&file).unwrap().tcb, at(6).tcb.committed.to_raw());
    assert!(updated.opens(&file).await);
    // Firmware that was rolled back has no key of a higher TCB.
    assert!(matches!(old.unseal(&file).await.err(), Some(SealingError::Processor(_))));
}

/// As docs/sealing.md tells it, An upgrade.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sealed_data_outlives_an_upgrade_of_the_platform() {
    let kbs = Kbs::start().await;
    put_context(&kbs, TENANT, CONTEXT).await;
    assert!(list_key(&kbs, MANIFEST_KEY).await);
    let platform = |platform| Guest::launch(&Launch { platform, ..Launch::default() });
    let (old, new) = (platform(1), platform(2));
    assert_eq!(old.document.digest(), new.document.digest(), "the same workload");
    let manifest = |name: &str, guest: &Guest| {
        let contents = contents(1, guest.measurement, guest.document.digest());
        sign(Contents { name: name.into(), ..contents }, MANIFEST_KEY)
    };
    assert!(add(&kbs, manifest("first", &old)).await.unwrap());
    let old = Sealing::connect(&kbs, old).await.unwrap();
    let bound = old.seal(SealPolicy::MeasurementAndChip).await;
    let counted =
        old.means(Scope::Agent).seal(SealPolicy::Measurement, CONTEXT, Counter::Begin, STATE).await.unwrap().bytes;

    // The new platform is measured. Before its manifest is there it gets nothing.
    let new = Sealing::connect(&kbs, new).await.unwrap();
    not_released(
        new.means(Scope::Agent).seal(SealPolicy::Workload, CONTEXT, Counter::None, STATE).await,
        SealPolicy::Workload,
    );
    assert!(add(&kbs, manifest("second", &new.guest)).await.unwrap());

    // Both are admitted: what was bound to the old one becomes the workload's, inside the old one.
    let movable = old.means(Scope::Agent).reseal(Some(SealPolicy::Workload), CONTEXT, &bound).await.unwrap().bytes;
    let counted_movable =
        old.means(Scope::Agent).reseal(Some(SealPolicy::Workload), CONTEXT, &counted).await.unwrap().bytes;
    assert!(!new.opens(&bound).await && new.opens(&movable).await && new.opens(&counted_movable).await);
    let moved =
        new.means(Scope::Agent).reseal(Some(SealPolicy::MeasurementAndChip), CONTEXT, &movable).await.unwrap().bytes;
    let counted =
        new.means(Scope::Agent).reseal(Some(SealPolicy::Measurement), CONTEXT, &counted_movable).await.unwrap().bytes;

    // The old one is revoked, and gets no key any more, of nothing.
    assert_eq!(kbs.admin().await.revoke_manifest(TENANT, "first").await.unwrap().map(|it| it.through), Some(1));
    for file in [&movable, &counted_movable] {
        let line = kbs.line_of(&not_released(old.unseal(file).await, SealPolicy::Workload));
        assert!(has_reason(&line, "manifest first sequence 1: revoked"), "{line}");
    }
    assert!(!old.opens(&moved).await);
    assert!(old.opens(&bound).await, "no broker is asked: such a copy is to be deleted");
    assert!(new.opens(&moved).await && new.unseal(&counted).await.unwrap().rollback_protected);
}
