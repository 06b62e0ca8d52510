//! What the commands about evidence judge with: flags, files, policies and roots, and the judge behind them.
//!
//! Trusts: the files and the clock of its caller. Never: prints, but for a warning.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use coffer_kds::{Base, Collected, Failures};
use coffer_policies::typed::{Guests, lint_typed};
use coffer_policies::{Policy, reads_as_built_in};
use coffer_rim::input;
use coffer_runtime::simulator;
use coffer_verifier::abi::{self, Report, ReportData, SpkiDigest};
use coffer_verifier::ear::{NamedBinding, Nonce};
use coffer_verifier::{
    Appraisal, Code, ConnectionChain, CrlPolicy, EndorsementKind, Endorsements, Evidence, EvidencePolicy, Expected,
    ExpectedGuest, ExpectedReportData, HclBlob, Look, MaxAge, Presented, PresentedError, STRICT, TrustAnchors,
    UnixTime, Verdict, Verifier,
};
use sha2::{Digest as _, Sha256};

use crate::context::Context;
use crate::error::{self, Class, Classify as _, CliError};
use crate::evidence::beside::Beside;
pub use crate::evidence::beside::read;
use crate::evidence::{fetching, rego};

/// What is judged, and how.
#[derive(Clone, Debug, clap::Args)]
pub struct Judging {
    /// A 1184-byte report, an Azure HCL blob, a CMW record or a TSM report; `-` is standard input.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    #[command(flatten)]
    beside: Beside,

    /// Get what is missing from AMD's key distribution service, and keep it: `coffer collateral` lists it.
    #[arg(long)]
    pub fetch: bool,

    /// With --fetch: ask this service in place of AMD's; https, or http on this machine. Needed for a simulator's.
    #[arg(long, value_name = "URL", requires = "fetch")]
    mirror: Option<Base>,

    /// With --fetch: ask nobody; what is kept is all there is.
    #[arg(long, requires = "fetch", conflicts_with = "mirror")]
    offline: bool,

    /// Decide as of this time (RFC 3339) instead of now.
    #[arg(long, value_name = "RFC3339", value_parser = UnixTime::parse)]
    pub at: Option<UnixTime>,

    /// Policy: a TOML file, or `strict`, the built-in one; and on top of it Rego, which only refuses: a .rego file, a folder of
    /// them, a bundle (.tar.gz), or `snp` or `azure-cvm`, which come with Coffer. Repeatable, TOML once.
    #[arg(long, value_name = "FILE")]
    pub policy: Vec<PathBuf>,

    #[command(flatten)]
    pub bundles: rego::Bundles,

    /// REPORT_DATA the report must hold, 64 bytes in hexadecimal.
    #[arg(long, value_name = "HEX")]
    pub report_data: Option<ReportData>,

    /// Nonce that the evidence must have been made over, as by `coffer attest --nonce`, 8 to 64 bytes in hexadecimal.
    #[arg(long, value_name = "HEX", value_parser = nonce, conflicts_with = "report_data")]
    pub nonce: Option<Nonce>,

    /// Data that the workload itself had the evidence made over, by `POST /v1/evidence` of its agent: at most 4096 bytes in hexadecimal,
    /// or @FILE.
    #[arg(long, value_name = "HEX|@FILE", value_parser = WorkloadData::parse, conflicts_with_all = ["report_data", "nonce"])]
    pub workload_data: Option<WorkloadData>,

    /// Waive revocation. The result says so.
    #[arg(long, conflicts_with = "crl")]
    no_crl: bool,

    /// Also believe simulated evidence: of this installation's simulator, or of those given by --anchor.
    #[arg(long)]
    pub allow_simulated: bool,

    /// With --allow-simulated: this simulator root, not this installation's. SHA-256 of its public key in hexadecimal, or its
    /// certificate, DER or PEM.
    #[arg(long, value_name = "HEX|FILE", requires = "allow_simulated")]
    anchor: Vec<String>,
}

/// What a workload had bound.
#[derive(Clone, Debug)]
pub enum WorkloadData {
    /// As it was typed.
    Bytes(Vec<u8>),
    /// What a file has.
    File(PathBuf),
}

impl WorkloadData {
    /// The agent's limit.
    const MOST: usize = 4096;

    fn parse(text: &str) -> Result<Self, &'static str> {
        if let Some(path) = text.strip_prefix('@') {
            return Ok(Self::File(path.into()));
        }
        let bytes = hex::decode(text).ok().filter(|bytes| bytes.len() <= Self::MOST);
        bytes.map(Self::Bytes).ok_or("expected at most 4096 bytes in hexadecimal, or @FILE")
    }

    /// The bytes.
    ///
    /// # Errors
    /// Class `config`: a file that cannot be read, or has more than the agent takes.
    pub fn read(&self) -> Result<Vec<u8>, CliError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.clone()),
            Self::File(path) => input::read(path, Self::MOST as u64)
                .class_while(Class::Config, format!("--workload-data: cannot read {}", path.display())),
        }
    }
}

/// What the judge says, and what was asked for in vain before.
pub struct Judgement {
    /// The judge's, lowered by what Rego has against it.
    pub appraisal: Appraisal,
    /// What Rego was asked about; none of evidence that is not authentic.
    pub input: Option<serde_json::Value>,
    /// With --fetch: what is not at hand, and why.
    pub not_fetched: Failures,
    /// Keys of the typed policy that meant nothing here, each of which was said in a warning.
    pub not_asked: Vec<&'static str>,
}

/// What the judge says of what was read.
pub fn judge(
    args: &Judging,
    input: &[u8],
    guest: ExpectedGuest,
    policy: &Named,
    context: &Context,
) -> Result<Judgement, CliError> {
    let presented = presented(&args.file, input)?;
    let report_data = args.demanded(&presented)?.map_or(ExpectedReportData::Any, ExpectedReportData::Exactly);
    let expected = Expected { report_data, guest };
    let judgement = decide(args, presented.evidence(), policy, context, |verifier, others, now| {
        verifier.judge_presented_guest(&ConnectionChain::new(), &presented, others, &expected, now)
    })?;
    Ok(judgement.without_manifest(&expected.guest, policy))
}

impl Judging {
    /// As of when it is decided.
    pub fn now(&self) -> UnixTime {
        self.at.unwrap_or_else(|| SystemTime::now().into())
    }

    /// Refuses words that contradict each other.
    ///
    /// # Errors
    /// Class `usage`.
    pub fn contradiction(&self) -> Result<(), CliError> {
        if self.fetch && self.at.is_some() {
            let message = "--fetch and --at contradict each other: what is fetched, and with --offline what was, is of its own day, and \
                a certificate issued since then is not valid at the time of --at";
            return Err(CliError::new(Class::Usage, message).hint(OF_THAT_TIME));
        }
        Ok(())
    }

    /// What helps against a root that nobody believes.
    pub const fn untrusted_root(&self) -> &'static str {
        match (self.allow_simulated, self.anchor.is_empty()) {
            (false, _) => SIMULATOR,
            (true, true) => OTHER_SIMULATOR,
            (true, false) => NOT_THE_ANCHOR,
        }
    }

    /// What to type where certificates or lists are missing, or a list is over. `own`: the chip is this installation's simulator.
    pub fn where_missing(&self, appraisal: &Appraisal, own: bool) -> Option<&'static str> {
        let missing = appraisal.missing();
        let of_provider = missing.iter().any(|request| request.kind == EndorsementKind::Leaf(abi::SigningKey::Vlek));
        if missing.is_empty() {
            let over = appraisal.reasons().iter().any(|reason| matches!(reason.code, Code::CrlDates | Code::CrlAge));
            let hint = if self.fetch { REFRESH_LIST } else { FETCH_LIST };
            (over && !self.allow_simulated && self.at.is_none() && !self.offline).then_some(hint)
        } else if self.allow_simulated {
            Some(SIMULATED_CERTIFICATES)
        } else if own {
            Some(OWN_SIMULATOR)
        } else if of_provider {
            let amds = missing.iter().any(|request| !coffer_kds::urls(request).is_empty());
            Some(if amds && !self.fetch && self.at.is_none() { VLEK_AND_LIST } else { VLEK })
        } else if self.at.is_some() {
            Some(OF_THAT_TIME)
        } else {
            // The provider's are nobody's to fetch.
            let served = missing.iter().any(|request| !coffer_kds::urls(request).is_empty());
            (served && !self.fetch).then_some(FETCH)
        }
    }

    /// Who is asked with --fetch.
    pub fn asked(&self) -> fetching::Asked {
        let asked = fetching::Asked::of(self.mirror.as_ref(), self.allow_simulated);
        if self.offline { fetching::Asked { service: None, ..asked } } else { asked }
    }

    /// What REPORT_DATA must be, if that was said.
    ///
    /// # Errors
    /// As [`WorkloadData::read`].
    pub fn demanded(&self, presented: &Presented) -> Result<Option<ReportData>, CliError> {
        if let Some(data) = &self.workload_data {
            return Ok(Some(presented.over_workload_data(&data.read()?)));
        }
        Ok(self.nonce.as_ref().map(|nonce| presented.over_nonce(nonce)).or(self.report_data))
    }

    /// Whether REPORT_DATA is computed, and so not what was typed.
    pub const fn computes_report_data(&self) -> bool {
        self.nonce.is_some() || self.workload_data.is_some()
    }

    /// What REPORT_DATA was made of, as far as it has a name. `data`: of --workload-data.
    pub fn binding<'a>(
        &'a self,
        presented: &Presented,
        blob: Option<&'a HclBlob<'a>>,
        data: Option<&'a [u8]>,
    ) -> NamedBinding<'a> {
        match (&self.nonce, data) {
            (_, Some(data)) => NamedBinding::Workload { workload: presented.workload(), data },
            (Some(nonce), None) => NamedBinding::Nonce(nonce),
            (None, None) => blob.map_or(NamedBinding::Raw, NamedBinding::AzureHcl),
        }
    }
}

const SIMULATED_CERTIFICATES: &str = "a simulator's certificates come with its evidence: verify the CMW record in place of the bare \
    report, or name the folder of `coffer sim evidence` with --certs; `coffer sim kds` serves this installation's, for --fetch --mirror URL";
const OWN_SIMULATOR: &str = "the evidence names the chip of this installation's simulator, for which AMD has nothing; --allow-simulated \
    believes that simulator, which proves nothing about hardware";
const OF_THAT_TIME: &str = "name those of that time: --certs DIR, or --vcek FILE and --crl FILE; --fetch gets today's, and stands \
    beside no --at";
const SIMULATOR: &str =
    "not AMD's root; with --allow-simulated this installation's simulator is believed, and with --anchor another one";
const OTHER_SIMULATOR: &str =
    "neither AMD's root nor that of this installation's simulator; --anchor lists another simulator's";
const NOT_THE_ANCHOR: &str = "neither AMD's root nor one that --anchor lists, beside which this installation's own does not count: the one \
    found is listed in the same way, where its simulator is meant";
const VLEK: &str = "name the VLEK certificate with --vlek FILE, or the whole table with --cert-table FILE: no service has it, but the guest \
    does, in the certificate table of its extended report, which the provider's host fills (`snpguest certificates pem DIR`)";
const VLEK_AND_LIST: &str = "name the VLEK certificate with --vlek FILE, or the whole table with --cert-table FILE: no service has it, but \
    the guest does, in the certificate table of its extended report, which the provider's host fills (`snpguest certificates pem DIR`); \
    --fetch gets AMD's list alone";
const REFRESH_LIST: &str = "`coffer collateral refresh` asks anew for the list that is kept";
const FETCH_LIST: &str = "with --fetch this command gets the list of today from AMD and keeps it";
const FETCH: &str =
    "with --fetch this command gets them from AMD and keeps them; --certs DIR names those that are at hand";

/// The chip whose certificates are missing is this installation's simulator, so that nobody else has them.
pub fn is_of_this_simulator(appraisal: &Appraisal, context: &Context) -> bool {
    let mut chips = appraisal.missing().iter().filter_map(|request| request.chip_id);
    // A folder that cannot be read is told where its roots are to be believed.
    chips.next().is_some_and(|chip| simulator::has_chip(&context.home.join("sim"), &chip).unwrap_or(false))
}

/// A nonce, as it is typed.
///
/// # Errors
/// What is expected.
pub fn nonce(text: &str) -> Result<Nonce, &'static str> {
    let bytes = hex::decode(text).map_err(|_| NONCE)?;
    Nonce::new(&bytes).map_err(|_| NONCE)
}

const NONCE: &str = "expected 8 to 64 bytes in hexadecimal";

impl Judgement {
    /// Nobody's manifest admitted this guest: a policy that bounds the age of one is told that it was not asked.
    fn without_manifest(mut self, guest: &ExpectedGuest, policy: &Named) -> Self {
        if *guest == ExpectedGuest::WhateverThePolicyAdmits && policy.rules.max_manifest_age != MaxAge::Any {
            error::warn(
                "max_manifest_age is not asked: no manifest is named that admits this guest; `coffer verify` and \
                 `coffer connect` take one with --reference, and a key broker has its own",
            );
            self.not_asked.push("max_manifest_age");
        }
        self
    }
}

/// What the judge says of evidence of which more is known than its bytes.
pub fn judge_shown(
    args: &Judging,
    evidence: &Evidence,
    expected: &Expected,
    policy: &Named,
    context: &Context,
) -> Result<Judgement, CliError> {
    let judgement = decide(args, evidence, policy, context, |verifier, others, now| {
        verifier.judge(evidence, others, expected, now)
    })?;
    Ok(judgement.without_manifest(&expected.guest, policy))
}

/// With what was named on the command line and, where that is wanted, fetched.
fn decide(
    args: &Judging,
    evidence: &Evidence,
    policy: &Named,
    context: &Context,
    judge: impl FnOnce(&Verifier, &Endorsements, UnixTime) -> Appraisal,
) -> Result<Judgement, CliError> {
    let anchors = anchors(args.allow_simulated, &args.anchor, context)?;
    let now = args.now();
    let crl = if args.no_crl { CrlPolicy::Waived } else { CrlPolicy::Required };
    let mut verifier = Verifier { anchors, crl, policy: policy.rules.clone() };
    let mut others = match args.beside.endorsements()? {
        Ok(others) => others,
        Err(error) => {
            return Ok(Judgement {
                appraisal: Appraisal::of_error(error),
                input: None,
                not_fetched: Vec::new(),
                not_asked: Vec::new(),
            });
        }
    };
    let mut not_fetched = Vec::new();
    if args.fetch {
        let found = fetched(args, &verifier.anchors, evidence, &others, now, context)?;
        others.merge(&found.endorsements);
        verifier.crl = found.crl_policy(&verifier.crl);
        not_fetched = found.failures;
    }
    let appraisal = judge(&verifier, &others, now);
    let input = coffer_policies::evidence_input(&appraisal, now);
    let appraisal = coffer_policies::lower(appraisal, &policy.rego, policy.rules.max_policy_age, now);
    if !appraisal.missing().is_empty() {
        args.beside.warn_of_passed_over();
    }
    Ok(Judgement { appraisal, input, not_fetched, not_asked: Vec::new() })
}

/// Exit code of a verdict.
pub fn exit_code(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Accepted => 0,
        Verdict::NotAuthentic => Class::NotAuthentic.code(),
        Verdict::Refused => Class::Refused.code(),
    }
}

/// Tells the forms of what `file` has apart.
pub fn presented(file: &Path, bytes: &[u8]) -> Result<Presented, CliError> {
    let named = |error: PresentedError| {
        CliError::caused(Class::Config, &error).while_doing(input::name(file)).hint(error.hint())
    };
    Presented::parse(bytes).map_err(named)
}

/// A policy, what it is called, and which text of it this is.
pub struct Named {
    /// Its typed rules.
    pub rules: EvidencePolicy,
    /// Rego behind them, each of which only refuses.
    pub rego: Vec<Policy>,
    /// `default-floor`, `strict`, or the file's name; names of Rego behind a `+` each.
    pub name: String,
    /// SHA-256 of its text; of the built-in floor, which has none, our version. Of several, the SHA-256 of all these.
    pub revision: String,
    /// Each by its name, with what a bundle calls its revision, or the SHA-256 of its text.
    pub texts: Vec<(String, String)>,
}

/// The policies of a command line: typed at most once, and Rego.
pub fn policy(paths: &[PathBuf], bundles: &rego::Bundles) -> Result<Named, CliError> {
    let (rego, typed): (Vec<PathBuf>, Vec<PathBuf>) = paths.iter().cloned().partition(|path| rego::is_rego(path));
    rego.iter().try_for_each(|path| rego::about_evidence(path))?;
    bundles.asked(&rego)?;
    if let [_, second, ..] = &typed[..] {
        let message = format!("--policy {}: there is a typed policy already", second.display());
        return Err(
            CliError::new(Class::Usage, message).hint("write both into one TOML file; of Rego there may be several")
        );
    }
    let words = "words are `strict` (typed), `snp` and `azure-cvm` (Rego; `release` is the key broker's alone); Rego is FILE.rego, a \
                 folder or a bundle; anything else is a TOML file";
    let typed = typed.first().map(PathBuf::as_path);
    let absent = typed.is_some_and(|path| !path.exists());
    let mut named = floor(typed).map_err(|failure| if absent { failure.hint(words) } else { failure })?;
    let mut revisions = vec![named.revision.clone()];
    for path in &rego {
        let loaded = rego::load(std::slice::from_ref(path), bundles)?;
        let (policy, digest) = (loaded.policy()?, hex::encode(loaded.digest));
        let name = if rego::is_word(path) { path.to_string_lossy().into_owned() } else { own_name(path)? };
        named.name = format!("{}+{name}", named.name);
        let revision = loaded.revision.filter(|revision| !revision.is_empty()).unwrap_or_else(|| digest.clone());
        named.texts.push((policy.name().to_owned(), revision));
        revisions.push(digest);
        named.rego.push(policy);
    }
    if revisions.len() > 1 {
        named.revision = hex::encode(Sha256::digest(revisions.join("\n")));
    }
    Ok(named)
}

/// Typed rules for a command that asks no Rego.
pub fn floor_alone(path: Option<&Path>) -> Result<EvidencePolicy, CliError> {
    path.map_or(Ok(()), rego::typed_alone)?;
    let Named { rules, name, .. } = floor(path)?;
    rules.without_rego().class_while(Class::Config, name)
}

/// The built-in floor, the built-in strict policy, or a file.
pub fn floor(path: Option<&Path>) -> Result<Named, CliError> {
    let digest = |text: &str| hex::encode(Sha256::digest(text));
    let of = |rules, name: String, revision: String| {
        let texts = vec![(name.clone(), revision.clone())];
        Named { rules, rego: Vec::new(), name, revision, texts }
    };
    match path {
        None => Ok(of(EvidencePolicy::default_floor(), "default-floor".into(), env!("CARGO_PKG_VERSION").into())),
        Some(word) if word == Path::new("strict") => Ok(of(EvidencePolicy::strict(), "strict".into(), digest(STRICT))),
        Some(path) => {
            let words = "the word `strict` is the built-in policy; anything else is a TOML file";
            let bytes = read(path).map_err(|failure| failure.hint(words))?;
            let text = String::from_utf8(bytes).map_err(|error| {
                let message =
                    format!("{}: {} where a policy (TOML) is due", input::name(path), Look::of(error.as_bytes()));
                CliError::new(Class::Config, message).hint(words)
            })?;
            let rules = EvidencePolicy::from_toml(&text).map_err(|error| {
                // As lint has them: all of them, each with its place.
                let name = input::name(path);
                let all = lint_typed(&name, &text, Guests::Elsewhere);
                let all: Vec<_> = all.iter().filter(|one| one.code == "mistake").map(ToString::to_string).collect();
                match Look::of(text.as_bytes()) {
                    Look::Text if all.is_empty() => CliError::caused(Class::Config, &error).while_doing(name),
                    Look::Text => CliError::of_mistakes(Class::Config, name, &all),
                    other => CliError::new(Class::Config, format!("{name}: {other} where a policy (TOML) is due"))
                        .hint(words),
                }
            })?;
            Ok(of(rules, own_name(path)?, digest(&text)))
        }
    }
}

/// What results call somebody's own policy: the name of its file or folder, which must not read as another's.
fn own_name(path: &Path) -> Result<String, CliError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if reads_as_built_in(&name) {
        let message = format!("--policy {}: results would call it {name:?}, as if it were built in", path.display());
        return Err(CliError::new(Class::Usage, message).hint("rename it; a name of yours has no `+`, as in web.toml"));
    }
    Ok(name)
}

/// What the evidence needs beside what it brings and what was named. The judge says what is wrong with evidence that cannot be read.
fn fetched(
    args: &Judging,
    anchors: &TrustAnchors,
    evidence: &Evidence,
    others: &Endorsements,
    now: UnixTime,
    context: &Context,
) -> Result<Collected, CliError> {
    let (Ok(report), Ok(mut carried)) = (Report::parse(&evidence.report), Endorsements::from_evidence(evidence)) else {
        return Ok(Collected::default());
    };
    carried.merge(others);
    // AMD is not asked for what it cannot have.
    let own = || simulator::has_chip(&context.home.join("sim"), &report.chip_id()).unwrap_or(false);
    if args.mirror.is_none() && !args.allow_simulated && own() {
        return Ok(Collected::default());
    }
    let kds = fetching::client(args.mirror.as_ref(), anchors, !args.offline, context)?;
    Ok(context.runtime()?.block_on(fetching::waited(&kds, context, async {
        let found = kds.collect(&report, &carried, now).await;
        // A list of some age is asked for anew beside its use, for the next time.
        kds.settle(Duration::from_secs(5)).await;
        found
    })))
}

/// Whom to believe: AMD; with simulated evidence allowed, this installation's simulator too, or those listed.
pub fn anchors(allow_simulated: bool, listed: &[String], context: &Context) -> Result<TrustAnchors, CliError> {
    match (allow_simulated, listed) {
        (true, []) => simulator::anchors(&context.home.join("sim")),
        (true, listed) => listed_anchors(listed),
        (false, _) => Ok(TrustAnchors::amd()),
    }
}

/// Somebody meant a digest.
fn is_short(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// AMD's roots, and those listed.
///
/// # Errors
/// The one that is no root of a simulator.
pub fn listed_anchors(listed: &[String]) -> Result<TrustAnchors, CliError> {
    let mut anchors = TrustAnchors::amd();
    for one in listed {
        anchors = match one.parse::<SpkiDigest>() {
            Ok(digest) => anchors.with_simulated(digest),
            Err(_) if is_short(one) && !Path::new(one).exists() => {
                let message =
                    format!("{one:?} is no digest, which has 64 hexadecimal digits, and there is no such file");
                return Err(CliError::new(Class::NotFound, message));
            }
            Err(_) => {
                let ark = anchors.with_simulated_ark(&read(Path::new(one))?).class_while(Class::Config, one);
                ark.map_err(|failure| {
                    failure.hint(
                        "--anchor takes a simulator's root: its certificate, such as ark.pem, or SHA-256 of its key",
                    )
                })?
            }
        };
    }
    Ok(anchors)
}
