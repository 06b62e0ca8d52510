//! `coffer manifest re-endorse`: the same release with a new date, once somebody has looked whether it still deserves one.
//!
//! Made for a timer: brokers whose floor has `max_manifest_age` admit a release only while this goes on. Nothing is written unless every
//! check holds. Trusts: the manifest keys and the revocation list that are named. Never: changes what is admitted, endorses a manifest
//! whose time is over or an older release than it endorsed last, gives it longer than it had, takes silence of the service for an answer.

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use coffer_kds::{Base, Item};
use coffer_rim::input;
use coffer_runtime::signing_key::{KeyPurpose, SigningKey, read_public, write_over};
use coffer_verifier::abi::{ProductLine, SigningKey as EndorsementKey};
use coffer_verifier::manifest::{Contents, ReferenceManifest, SignedManifest};
use coffer_verifier::{Endorsements, TrustAnchors, UnixTime, revoked_issuers};
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::{Class, Classify as _, CliError};
use crate::evidence::revoked::{self, Endorsing};
use crate::evidence::{fetching, judging};
use crate::launch::measure_manifest::Expiry;
use crate::launch::signed_manifest;

/// Give a release a new date, after asking AMD's service and a revocation list: what a timer does for floors with `max_manifest_age`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Chains and revocation lists are asked for anew; nothing is written unless all of them came and hold.
Exit status: 0 endorsed, 2 usage, 3 a file, 5 the manifest is not believed or an answer is not authentic, 6 it, or AMD's own \
certificate, is revoked, or a later release is endorsed already, 7 the service does not answer.

Examples:
  coffer manifest re-endorse web.json --sign witness.pem \\
      --key author.pem.pub --revoked revoked.toml --out endorsed.json
  coffer manifest re-endorse web.json --sign manifest.pem \\
      --product genoa --no-revocation-list --json")]
pub struct Args {
    #[command(flatten)]
    what: Endorsing,
    /// Product line whose chain and list are asked for: milan, genoa or turin; repeatable [default: all].
    #[arg(long, value_name = "LINE")]
    product: Vec<ProductLine>,
    /// Ask for the chains of VLEKs too.
    #[arg(long)]
    vlek: bool,
    /// Number of the new one [default: one more].
    #[arg(long, value_name = "N")]
    sequence: Option<u64>,
    /// From when on it admits nothing: a time, or 90d, 12h, 30m from now; no longer than it had [default: as long as it had].
    #[arg(long, value_name = "WHEN", value_parser = Expiry::parse)]
    expires: Option<Expiry>,
    /// Ask this service in place of AMD's: https, or http on this machine.
    #[arg(long, value_name = "URL")]
    mirror: Option<Base>,
    /// Ask a simulator's service, named by --mirror: this installation's, or that of --anchor.
    #[arg(long)]
    allow_simulated: bool,
    /// With --allow-simulated: this simulator root, not this installation's.
    #[arg(long, value_name = "HEX|FILE", requires = "allow_simulated")]
    anchor: Vec<String>,
}

/// Checks, signs and writes.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let key = SigningKey::read(&args.what.sign, KeyPurpose::Manifest)?;
    let mut believed = args.what.key.iter().map(|path| read_public(path)).collect::<Result<Vec<_>, _>>()?;
    if believed.is_empty() {
        believed.push(*key.public());
    }
    let now = UnixTime::from(SystemTime::now());
    let bytes = input::read(&args.what.file, input::DOCUMENT)
        .class_while(Class::Config, format!("cannot read {}", args.what.file.display()))?;
    let manifest = signed_manifest::believed(&bytes, &args.what.file, &believed, now)?;
    not_listed(args, manifest.contents(), now)?;
    let anchors = judging::anchors(args.allow_simulated, &args.anchor, context)?;
    let lists = asked_anew(args, &anchors, now, context)?;
    let last = manifest.contents().sequence.max(endorsed_before(args, manifest.contents(), &key)?);
    let next = dated(args, manifest.contents(), last, now)?;
    let envelope = SignedManifest::of(&next);
    let signature = key.sign(&envelope.signing_input())?;
    let envelope = envelope.with_signature(key.public(), signature);
    let out = args.what.out();
    write_over(out, format!("{}\n", envelope.to_json()).as_bytes(), 0o644)?;
    let Contents { name, sequence, created, expires, .. } = next.contents();
    let release = next.contents().released();
    if context.json {
        let value = json!({
            "file": out, "name": name, "sequence": sequence, "release": release, "created": created, "expires": expires,
            "key": key.public().spki_digest(), "lists": lists, "revocation_list": args.what.revoked,
            "simulated": anchors.accepts_simulated(), "simulated_roots": anchors.simulated(),
        });
        println!("{value}");
    } else {
        println!("endorsed  {name}");
        println!("sequence  {sequence}");
        println!("release   {release}");
        println!("created   {created}");
        println!("expires   {expires}");
        for list in &lists {
            let word = |key: &str| list[key].as_str().unwrap_or_default();
            println!("list      {} {} of {}", word("product"), list["number"], word("this_update"));
        }
        if anchors.accepts_simulated() {
            println!("SIMULATED: a simulator's service was asked, not AMD's; nothing is known of hardware");
        }
        args.what.print_waived();
    }
    Ok(ExitCode::SUCCESS)
}

fn not_listed(args: &Args, contents: &Contents, now: UnixTime) -> Result<(), CliError> {
    let Some(path) = &args.what.revoked else { return Ok(()) };
    let list = revoked::read(path, now)?;
    let named = list.named_in(contents);
    if named.is_empty() {
        return Ok(());
    }
    Err(revoked::refused(format!(
        "{} is not endorsed any more: {} lists {}",
        contents.name,
        path.display(),
        named.join(", ")
    ))
    .hint("make a release without it; `coffer kbs manifest revoke` ends this one at once"))
}

/// Chains and lists as the service has them now, each verified up to its pinned root, and no intermediate on its list.
fn asked_anew(args: &Args, anchors: &TrustAnchors, now: UnixTime, context: &Context) -> Result<Vec<Value>, CliError> {
    let kds = fetching::client(args.mirror.as_ref(), anchors, true, context)?;
    let products = if args.product.is_empty() { ProductLine::ALL.to_vec() } else { args.product.clone() };
    let keys: &[EndorsementKey] =
        if args.vlek { &[EndorsementKey::Vcek, EndorsementKey::Vlek] } else { &[EndorsementKey::Vcek] };
    let mut items = Vec::new();
    for product in products {
        for key in keys {
            items.extend([Item::Chain { product, key: *key }, Item::Crl { product, key: *key }]);
        }
    }
    let found = context.runtime()?.block_on(fetching::waited(&kds, context, async {
        // Chains first: a simulator's list rests on one.
        let (chains, lists): (Vec<Item>, Vec<Item>) =
            items.into_iter().partition(|item| matches!(item, Item::Chain { .. }));
        let mut found = kds.refresh(&chains, now).await;
        if found.failures.is_empty() {
            let lists = kds.refresh(&lists, now).await;
            found.endorsements.merge(&lists.endorsements);
            found.failures = lists.failures;
        }
        kds.settle(Duration::from_secs(1)).await;
        found
    }));
    if let Some(first) = found.failures.first() {
        let asked = fetching::Asked::of(args.mirror.as_ref(), anchors.accepts_simulated());
        return Err(fetching::failed(first, &asked).while_doing("nothing was endorsed"));
    }
    let mut all = found.endorsements.clone();
    if !anchors.accepts_simulated() {
        all.merge(Endorsements::amd());
    }
    if let Some((role, number)) = revoked_issuers(&all).into_iter().next() {
        return Err(revoked::refused(format!("the {role} is revoked by list {number}"))
            .hint("no report under it counts any more: no manifest does either"));
    }
    let list = |list: &coffer_verifier::chain::Crl| {
        let (this_update, next_update) = list.validity();
        json!({ "product": list.product(), "number": list.number(), "this_update": this_update, "next_update": next_update })
    };
    Ok(found.endorsements.crls().map(list).collect())
}

/// The number that lies at OUT from the last time, of this release or an earlier one and by this key; 0 where nothing does. Anything else
/// stays there. Asked last, so that what another run wrote meanwhile counts.
fn endorsed_before(args: &Args, contents: &Contents, key: &SigningKey) -> Result<u64, CliError> {
    let Some(out) = args.what.before() else { return Ok(0) };
    let other = |error: CliError| {
        error.hint("name another --out: what lies there is no endorsement of this release by this key")
    };
    let verified = signed_manifest::parse(out).map_err(other)?.verify(&[*key.public()]);
    let before = verified.map_err(|refusal| other(signed_manifest::refused(&refusal, out)))?;
    let before = before.manifest().contents();
    let (name, found) = (&contents.name, &before.name);
    if found != name {
        return Err(other(CliError::new(Class::Config, format!("{} is of {found}, not of {name}", out.display()))));
    }
    if contents.goes_back_behind(before) {
        let (release, newest) = (contents.released(), before.released());
        let message = format!("{name} is of release {release}, and {} dates release {newest}", out.display());
        return Err(revoked::goes_back(message));
    }
    Ok(before.sequence)
}

/// The same, with a later date and a number above the `last`.
fn dated(args: &Args, contents: &Contents, last: u64, now: UnixTime) -> Result<ReferenceManifest, CliError> {
    let sequence = args.sequence.unwrap_or_else(|| last.saturating_add(1));
    if sequence <= last {
        let message = format!("--sequence {sequence} is not above {last}, which it has");
        return Err(CliError::new(Class::Usage, message).hint("a broker takes higher numbers of a name alone"));
    }
    let before = contents.expires.0.saturating_sub(contents.created.0);
    let expires = match args.expires {
        Some(expires) => expires.counted_from(now)?,
        None => UnixTime(now.0.saturating_add(before)),
    };
    if expires.0.saturating_sub(now.0) > before {
        let message = format!(
            "--expires {expires} is further away than the {before} seconds that {} was made for",
            contents.name
        );
        return Err(CliError::new(Class::Refused, message)
            .hint("its author said for how long it is good: a witness does not say more. Leave --expires out, or have a release made"));
    }
    let release = Some(contents.released());
    ReferenceManifest::new(Contents { sequence, release, created: now, expires, ..contents.clone() })
        .class(Class::Config)
}
