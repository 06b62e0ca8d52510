//! The rollback kit against a broker that runs: somebody writes to its database beneath it, at any moment, row by row.
//!
//! Nothing is released that the present state forbids, and what does not rest on a touched row goes on working.

use crate::common;
use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::common::{Author, Guest, Kbs, Key, Launch, PATH, TENANT, VALUE, anchor, ask, put};
use coffer_kbs::{Kind, open_store};
use coffer_kbs_client::{
    AdminClient, AdminProfile, BrokerClient, CertificateProfile, Grant, ManifestKey, PutSecret, ResourcePath, Scope,
    SealingContext, SealingName, SealingPolicy, Signer, kbs::admin::v1::Terms,
};
use coffer_ratls::Identity;
use coffer_verifier::{
    Expiry, SignerRule, UnixTime,
    abi::{FamilyId, ImageId, SpkiDigest},
    manifest::{Contents, MeasuredLaunch, ReferenceManifest, SignedManifest},
    measure::LaunchForm,
};
use rusqlite::Connection;
use secrecy::SecretBox;

const GONE: &str = "kbs:///default/app/gone";
const REAL: &str = "kbs:///default/app/real";
const COUNTER: [u8; 16] = [7; 16];

/// Where rows of a kind come from in this world: the compiler asks for a line here when there is a new kind.
fn is_furnished(kind: Kind) -> bool {
    match kind {
        Kind::SecretHead
        | Kind::SecretVersion
        | Kind::Reference
        | Kind::Signer
        | Kind::ManifestKey
        | Kind::Manifest
        | Kind::ManifestWorkload
        | Kind::CrlNumber
        | Kind::SealingContext
        | Kind::Generation
        | Kind::CertificateProfile
        | Kind::TenantKey
        | Kind::Admin
        | Kind::Tenant
        | Kind::Revocation
        | Kind::Head
        | Kind::AuditLine
        | Kind::DecisionInput
        | Kind::StateEntry => true,
        // Only a folder that was restored has it; the store's own kit does, and those that have stories of their own.
        Kind::Restored | Kind::Policy | Kind::Crl | Kind::AuditArchive => false,
    }
}

fn sealing() -> SealingName {
    SealingName { policy: SealingPolicy::Workload, scope: Scope::Agent, context: b"db".to_vec(), minimum_svn: None }
}

fn author(key: u8) -> Launch {
    Launch { platform: key, id: Some(Author { key, ..Author::default() }), ..Launch::default() }
}

fn signer(name: &str, key: u8) -> Signer {
    let id = Author::default();
    let rule = SignerRule {
        author_key: Key::new(key).author_digest(),
        family_id: FamilyId::new(id.family_id),
        image_id: ImageId::new(id.image_id),
        minimum_guest_svn: 1,
    };
    Signer { tenant: TENANT.into(), name: name.into(), rule, expires: Expiry::Never }
}

fn manifest(sequence: u64, guest: &Guest) -> Vec<u8> {
    let now = i64::try_from(common::unix()).unwrap();
    let contents = Contents {
        name: "web".into(),
        sequence,
        release: None,
        created: UnixTime(now - 10),
        expires: UnixTime(now + 6000),
        components: Vec::new(),
        workload: guest.document.digest(),
        measurements: vec![MeasuredLaunch {
            launch: LaunchForm::LongMode,
            vcpus: 2,
            vcpu_type: "EPYC-Milan".into(),
            measurement: guest.measurement,
        }],
    };
    let envelope = SignedManifest::of(&ReferenceManifest::new(contents).unwrap());
    let key = Key::new(0x30);
    let signature = key.sign(&envelope.signing_input());
    envelope.with_signature(&key.public, signature).to_json().into_bytes()
}

type Asked = Pin<Box<dyn Future<Output = Option<Vec<u8>>>>>;

/// One thing that can be asked, and what the present state says to it.
struct Question {
    name: &'static str,
    ask: Box<dyn Fn() -> Asked>,
    /// Nothing: it is forbidden.
    answer: Option<Vec<u8>>,
    /// Kinds whose rows it may rest on, with what stands in the keys of those that count.
    rests: Vec<(Kind, Vec<u8>)>,
}

impl Question {
    fn rests_on(&self, kind: Kind, key: &[u8]) -> bool {
        // The evidence of every guest is held against the highest list number of its root.
        let root = kind == Kind::CrlNumber && key.windows(32).any(|window| window == common::anchor().as_bytes());
        root || self.rests.iter().any(|(of, part)| {
            *of == kind && (part.is_empty() || key.windows(part.len()).any(|window| window == part.as_slice()))
        })
    }
}

fn secret(client: &Arc<BrokerClient>, path: &'static str) -> Box<dyn Fn() -> Asked> {
    let client = client.clone();
    Box::new(move || {
        let client = client.clone();
        Box::pin(async move { ask(&client, path).await.ok() })
    })
}

type Rows = BTreeMap<(String, Vec<u8>), (Vec<u8>, Vec<u8>)>;

struct World {
    kbs: Kbs,
    questions: Vec<Question>,
    attacker: Connection,
    old: Rows,
}

fn dump(connection: &Connection) -> Rows {
    let mut all = connection.prepare_cached("SELECT kind, key, body, mac FROM rows").unwrap();
    let rows = all.query_map([], |row| Ok(((row.get(0)?, row.get(1)?), (row.get(2)?, row.get(3)?)))).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

type Form = Option<(Vec<u8>, Vec<u8>)>;

/// Puts one row, or takes it away.
fn set(connection: &Connection, key: &(String, Vec<u8>), form: &Form) {
    match form {
        Some((body, mac)) => {
            let put = "INSERT OR REPLACE INTO rows (kind, key, body, mac) VALUES (?1, ?2, ?3, ?4)";
            connection.execute(put, rusqlite::params![key.0, key.1, body, mac]).unwrap();
        }
        None => drop(
            connection
                .execute("DELETE FROM rows WHERE kind = ?1 AND key = ?2", [&key.0 as &dyn rusqlite::ToSql, &key.1])
                .unwrap(),
        ),
    }
}

fn decides(key: &(String, Vec<u8>)) -> bool {
    Kind::from_name(&key.0).unwrap().decides()
}

async fn value(kbs: &Kbs, path: &str, value: &[u8], allow_simulated: bool) {
    let (path, value): (ResourcePath, _) = (path.parse().unwrap(), SecretBox::new(Box::new(value.to_vec())));
    let new = PutSecret { allow_simulated: Some(allow_simulated), ..put(&path, &value) };
    kbs.admin().await.put_secret(new).await.unwrap();
}

impl World {
    #[allow(clippy::too_many_lines, reason = "a world is a list")]
    async fn new() -> Self {
        let kbs = Kbs::start_with(|config| {
            config.tenants.entry(TENANT.into()).or_default().simulated_anchors = vec![anchor().to_string()];
            config.limits.requests_per_second_per_guest = 100_000;
            config.limits.new_per_second_per_source = 100_000;
        })
        .await;
        let owner = kbs.admin().await;
        let guest = Guest::usual();
        let (listed, foreign) = (Guest::launch(&author(0x21)), Guest::launch(&author(0x22)));
        let (newer, older) = (platform(5), platform(6));
        let (removed, revoked) = (platform(3), platform(4));
        // As it was.
        for (path, real) in [(PATH, true), (GONE, true), (REAL, true)] {
            value(&kbs, path, b"an older value", real).await;
        }
        for one in [&guest, &removed, &revoked] {
            kbs.admit(one.measurement, one.document.digest()).await;
        }
        owner.add_signer(&signer("listed", 0x21)).await.unwrap();
        owner.add_signer(&signer("removed", 0x22)).await.unwrap();
        let manifest_key = ManifestKey { tenant: TENANT.into(), name: "ci".into(), key: Key::new(0x30).public };
        owner.add_manifest_key(&manifest_key).await.unwrap();
        owner.add_manifest(TENANT, manifest(1, &older)).await.unwrap();
        owner.add_tenant("globex").await.unwrap();
        let (demoted, dismissed) = (Identity::generate("demoted").unwrap(), Identity::generate("dismissed").unwrap());
        let grant = |role: &str| [Grant { role: role.into(), tenant: None }];
        owner.add_admin("demoted", &demoted.spki(), &grant("owner")).await.unwrap();
        owner.add_admin("dismissed", &dismissed.spki(), &grant("owner")).await.unwrap();
        let context = SealingContext {
            tenant: TENANT.into(),
            context: b"db".to_vec(),
            policies: vec![SealingPolicy::Workload.to_string()],
            terms: Some(Terms { allow_simulated: true, policy: None, rules: None }),
            created_unix: 0,
        };
        owner.put_sealing_context(context.clone()).await.unwrap();
        owner.put_sealing_context(SealingContext { context: b"closed".to_vec(), ..context }).await.unwrap();
        let profile = CertificateProfile { tenant: TENANT.into(), name: "web".into(), ..certificate() };
        owner.put_certificate_profile(profile.clone()).await.unwrap();
        let client = Arc::new(kbs.connect(guest.clone()).await.unwrap());
        client.set_generation(&sealing(), &COUNTER, 0, 1).await.unwrap();
        raise_crl(&kbs, 4).await;
        let attacker = Connection::open(kbs.state().join("kbs.db")).unwrap();
        attacker.busy_timeout(Duration::from_secs(10)).unwrap();
        attacker.execute_batch("PRAGMA synchronous = OFF").unwrap();
        let old = dump(&attacker);
        // And as it is now.
        value(&kbs, PATH, VALUE, true).await;
        value(&kbs, REAL, VALUE, false).await;
        owner.delete_secret(TENANT, &GONE.parse().unwrap(), None).await.unwrap();
        owner.remove_reference(TENANT, &removed.measurement, &removed.document.digest()).await.unwrap();
        owner.revoke(None, "measurement", &revoked.measurement.to_string(), Some("stolen")).await.unwrap();
        owner.remove_signer(TENANT, "removed").await.unwrap();
        owner.add_manifest(TENANT, manifest(2, &newer)).await.unwrap();
        owner.add_admin("demoted", &demoted.spki(), &grant("operator")).await.unwrap();
        owner.remove_admin(&dismissed.spki()).await.unwrap();
        owner.remove_sealing_context(TENANT, b"closed").await.unwrap();
        owner.put_certificate_profile(CertificateProfile { lifetime_seconds: 120, ..profile }).await.unwrap();
        client.set_generation(&sealing(), &COUNTER, 1, 3).await.unwrap();
        raise_crl(&kbs, 5).await;

        let connect = async |guest: &Arc<Guest>| Arc::new(kbs.connect(guest.clone()).await.unwrap());
        let of = |kind: Kind, part: &[u8]| (kind, part.to_vec());
        let at = |path: &str| vec![of(Kind::SecretHead, path.as_bytes()), of(Kind::SecretVersion, path.as_bytes())];
        let with = |mut rests: Vec<(Kind, Vec<u8>)>, more: Vec<(Kind, Vec<u8>)>| {
            rests.extend(more);
            rests
        };
        let pair = |guest: &Guest| of(Kind::Reference, guest.measurement.as_bytes());
        let mut questions = vec![
            Question {
                name: "the guest's secret",
                ask: secret(&client, PATH),
                answer: Some(VALUE.to_vec()),
                rests: with(at(PATH), vec![pair(&guest)]),
            },
            Question {
                name: "a guest of a listed author",
                ask: secret(&connect(&listed).await, PATH),
                answer: Some(VALUE.to_vec()),
                rests: with(at(PATH), vec![of(Kind::Signer, b"listed")]),
            },
            Question {
                name: "a guest of the newest manifest",
                ask: secret(&connect(&newer).await, PATH),
                answer: Some(VALUE.to_vec()),
                rests: with(
                    at(PATH),
                    vec![of(Kind::Manifest, b""), of(Kind::ManifestKey, b""), of(Kind::ManifestWorkload, b"")],
                ),
            },
        ];
        for (name, guest, path) in [
            ("a deleted secret", &guest, GONE),
            ("a secret that simulated evidence may no longer have", &guest, REAL),
            ("a guest whose reference was removed", &removed, PATH),
            ("a guest that is revoked", &revoked, PATH),
            ("a guest of an author that was removed", &foreign, PATH),
            ("a guest of a manifest that was overtaken", &older, PATH),
        ] {
            let ask = secret(&connect(guest).await, path);
            questions.push(Question { name, ask, answer: None, rests: Vec::new() });
        }
        let rests = vec![of(Kind::SealingContext, b"db"), of(Kind::TenantKey, b"sealing"), pair(&guest)];
        let counted = with(rests.clone(), vec![of(Kind::Generation, b"")]);
        let one = client.clone();
        questions.push(Question {
            name: "a counter",
            ask: Box::new(move || {
                let one = one.clone();
                Box::pin(async move {
                    one.generation(&sealing(), &COUNTER).await.ok().map(|found| found.current.to_be_bytes().to_vec())
                })
            }),
            answer: Some(3_u64.to_be_bytes().to_vec()),
            rests: counted,
        });
        for (name, context, rests) in
            [("a sealing key", b"db".to_vec(), rests), ("a context that was removed", b"closed".to_vec(), Vec::new())]
        {
            let (one, wanted) = (client.clone(), SealingName { context, ..sealing() });
            let ask = move || -> Asked {
                let (one, wanted) = (one.clone(), wanted.clone());
                Box::pin(async move {
                    let key = one.sealing_key(&wanted).await.ok()?;
                    Some(secrecy::ExposeSecret::expose_secret(&key.0).to_vec())
                })
            };
            let answer = if rests.is_empty() { None } else { Some(ask().await.unwrap()) };
            questions.push(Question { name, ask: Box::new(ask), answer, rests });
        }
        for (name, identity, answer) in [
            ("an operator that is an owner no more", demoted, false),
            ("an operator that was removed", dismissed, false),
        ] {
            let profile = AdminProfile { identity, ..AdminProfile::read(&kbs.state().join("admin.toml")).unwrap() };
            let profile = Arc::new(profile);
            let ask = move || -> Asked {
                let profile = profile.clone();
                Box::pin(async move {
                    let admin = AdminClient::connect(&profile).await.ok()?;
                    admin.list_admins(None).await.ok().map(|_| Vec::new())
                })
            };
            questions.push(Question { name, ask: Box::new(ask), answer: answer.then(Vec::new), rests: Vec::new() });
        }
        let world = Self { kbs, questions, attacker, old };
        let now = dump(&world.attacker);
        for kind in Kind::ALL {
            let there = now.keys().any(|(name, _)| name == kind.name());
            assert!(there || !is_furnished(kind), "{kind:?} is not in this world");
        }
        world
    }

    /// Asks everything. `touched`: the row that is not as it should be.
    async fn judge(&self, touched: Option<&(String, Vec<u8>)>, attack: &str) {
        let asked = self.questions.iter().map(|question| async move { (question, (question.ask)().await) });
        for (question, found) in join(asked).await {
            let Question { name, answer, .. } = question;
            if let Some(found) = found {
                assert_eq!(Some(&found), answer.as_ref(), "{attack}: {name} gave what the present state forbids");
            } else if answer.is_some() {
                let touches = touched.is_some_and(|(kind, key)| question.rests_on(Kind::from_name(kind).unwrap(), key));
                assert!(touches, "{attack}: {name} is refused, and rests on none of it");
            }
        }
    }

    /// Changes something: a guest that was turned away for a damaged row is looked at again when the ledger has changed.
    async fn go_on(&self) {
        value(&self.kbs, ASIDE, VALUE, false).await;
    }

    /// Every row that is there or was, with the forms somebody could give it.
    fn attacks(&self) -> Vec<((String, Vec<u8>), Form, Form)> {
        let now = dump(&self.attacker);
        let aside = |key: &(String, Vec<u8>)| key.1.windows(ASIDE.len()).any(|window| window == ASIDE.as_bytes());
        let keys: std::collections::BTreeSet<_> =
            now.keys().chain(self.old.keys()).filter(|key| decides(key) && !aside(key)).collect();
        let mut all = Vec::new();
        for key in keys {
            let there = now.get(key).cloned();
            let mut forms: Vec<Form> = vec![None, self.old.get(key).cloned()];
            forms.extend(there.iter().map(|(body, mac)| {
                let mut body = body.clone();
                let end = body.len().saturating_sub(1);
                if let Some(byte) = body.get_mut(end) {
                    *byte ^= 1;
                }
                let edited = if body.is_empty() { vec![0] } else { body };
                Some((edited, mac.clone()))
            }));
            forms.retain(|form| *form != there);
            forms.dedup();
            all.extend(forms.into_iter().map(|form| (key.clone(), form, there.clone())));
        }
        all
    }
}

/// A secret nobody asks for and nobody attacks.
const ASIDE: &str = "kbs:///default/app/aside";

fn platform(platform: u8) -> Arc<Guest> {
    let mut spec = common::spec(&[PATH]);
    spec.process.argv = vec![format!("/bin/{platform}")];
    Guest::launch(&Launch { platform, spec, ..Launch::default() })
}

fn certificate() -> CertificateProfile {
    CertificateProfile {
        lifetime_seconds: 3600,
        dns: vec!["web.acme.example".into()],
        server_auth: true,
        terms: Some(Terms { allow_simulated: true, policy: None, rules: None }),
        ..CertificateProfile::default()
    }
}

async fn raise_crl(kbs: &Kbs, number: u64) {
    let mut ledger = open_store(&kbs.state()).await.unwrap().write().await.unwrap();
    ledger.raise_crl_number(&SpkiDigest::new([1; 32]), number).await.unwrap();
    ledger.commit().await.unwrap();
}

async fn join<T>(all: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut found = Vec::new();
    for one in all {
        found.push(one.await);
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_row_that_is_changed_beneath_a_running_broker_releases_anything_or_stops_another() {
    let world = World::new().await;
    world.judge(None, "nothing").await;
    let attacks = world.attacks();
    let (mut named, began) = (0, Instant::now());
    for (number, (key, form, there)) in attacks.iter().enumerate() {
        let attack = format!("{number} of {}: {} {} as {}", attacks.len(), key.0, hex::encode(&key.1), form.is_some());
        set(&world.attacker, key, form);
        world.judge(Some(key), &attack).await;
        let faults = open_store(&world.kbs.state()).await.unwrap().verify_state().await.unwrap().faults;
        assert_eq!(faults.len(), 1, "{attack}: {faults:?}");
        named += faults.len();
        set(&world.attacker, key, there);
        world.go_on().await;
    }
    world.judge(None, "everything put back").await;
    eprintln!("{named} attacks in {:?}", began.elapsed());
    assert!(named > 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_random_times_under_load_nothing_forbidden_leaves() {
    let seed = common::seed();
    let world = World::new().await;
    let attacks = world.attacks();
    let (over, state) = (Arc::new(AtomicBool::new(false)), world.kbs.state());
    let attacking = tokio::task::spawn_blocking({
        let over = over.clone();
        move || {
            let connection = Connection::open(state.join("kbs.db")).unwrap();
            connection.busy_timeout(Duration::from_secs(10)).unwrap();
            let (mut random, mut count) = (common::random(seed), 0);
            while !over.load(Ordering::Relaxed) {
                let (key, form, there) = &attacks[random(attacks.len())];
                set(&connection, key, form);
                std::thread::sleep(Duration::from_millis(random(30) as u64));
                set(&connection, key, there);
                std::thread::sleep(Duration::from_millis(random(10) as u64));
                count += 1;
            }
            count
        }
    });
    let until = Instant::now() + Duration::from_secs(8);
    let mut asked = 0;
    while Instant::now() < until {
        for question in &world.questions {
            if let Some(found) = (question.ask)().await {
                let name = question.name;
                assert_eq!(Some(&found), question.answer.as_ref(), "{name} under seed {seed}");
                asked += usize::from(question.answer.is_some());
            }
        }
    }
    over.store(true, Ordering::Relaxed);
    let count = attacking.await.unwrap();
    world.go_on().await;
    eprintln!("{count} attacks, {asked} answers");
    assert!(count > 20 && asked > 0);
    world.judge(None, "everything put back").await;
    let faults = open_store(&world.kbs.state()).await.unwrap().verify_state().await.unwrap().faults;
    assert!(faults.is_empty(), "{faults:?}");
}
