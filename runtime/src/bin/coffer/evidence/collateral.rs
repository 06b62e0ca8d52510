//! `coffer collateral`: the certificates and revocation lists that `coffer verify --fetch` keeps, in `$COFFER_HOME/collateral`.
//!
//! Whatever is kept, read or written out is checked up to AMD's pinned roots, each time. A service, a mirror or a medium can withhold.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use coffer_kds::{Base, Collected, Item, Kds, Unfit};
use coffer_rim::chain;
use coffer_runtime::simulator;
use coffer_verifier::abi::{ProductLine, Report, SigningKey, SpkiDigest};
use coffer_verifier::{Endorsements, UnixTime};
use serde_json::{Value, json};

use super::{fetching, judging};
use crate::context::Context;
use crate::error::{self, Class, Classify as _, CliError};
use crate::row::Entry;
use crate::table;

/// Fetch, list, and carry to and from other machines the certificates and revocation lists that reports are verified with.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer collateral fetch report.bin
  coffer collateral fetch --product milan
  coffer collateral ls
  coffer collateral export --out medium
  coffer collateral import medium")]
pub struct Args {}

/// Its commands.
pub const COMMANDS: &[Entry] = &[
    command!("fetch": FetchArgs => fetch),
    command!("ls": ListArgs => list),
    command!("refresh": RefreshArgs => refresh),
    command!("import": ImportArgs => import),
    command!("export": ExportArgs => export),
];

/// Whose, and who is asked.
#[derive(Debug, clap::Args)]
struct Whose {
    /// Of simulators: this installation's, or those given by --anchor. Asking needs --mirror then: AMD has nothing of theirs.
    #[arg(long)]
    allow_simulated: bool,

    /// With --allow-simulated: this simulator root, not this installation's. SHA-256 of its public key in hexadecimal, or its
    /// certificate, DER or PEM.
    #[arg(long, value_name = "HEX|FILE", requires = "allow_simulated")]
    anchor: Vec<String>,
}

impl Whose {
    fn client(&self, mirror: Option<&Base>, asks: bool, context: &Context) -> Result<Kds, CliError> {
        fetching::client(mirror, &judging::anchors(self.allow_simulated, &self.anchor, context)?, asks, context)
    }
}

impl Whose {
    /// Nobody is asked in AMD's name for what this installation's simulator made.
    fn may_ask_for(&self, report: &Report, file: &Path, context: &Context) -> Result<(), CliError> {
        if self.allow_simulated || !simulator::has_chip(&context.home.join("sim"), &report.chip_id())? {
            return Ok(());
        }
        let message = format!("{} is simulated evidence, by this installation's simulator", file.display());
        Err(CliError::new(Class::NotAuthentic, message)
            .hint("say --allow-simulated, with --mirror URL of its service: `coffer sim kds` is one"))
    }
}

fn now() -> UnixTime {
    SystemTime::now().into()
}

/// Get what these reports need, or the chains and lists of whole product lines, and keep it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Each item is said: fetched, updated (in place of one that was kept), kept (it was here). Exit status: 0 all of it is kept, 1 the service \
has none of it, 3 a file cannot be read, 5 an answer is not authentic, or a report simulated, 7 the service does not answer.

Examples:
  coffer collateral fetch report.bin other.bin
  coffer collateral fetch --product milan --product genoa")]
struct FetchArgs {
    /// Reports, Azure HCL blobs, CMW records or TSM reports.
    #[arg(value_name = "FILE", required_unless_present = "product")]
    files: Vec<PathBuf>,

    /// Chain and list of this product line: milan, genoa or turin.
    #[arg(long, value_name = "LINE")]
    product: Vec<ProductLine>,

    /// Ask this service in place of AMD's: https, or http on this machine.
    #[arg(long, value_name = "URL")]
    mirror: Option<Base>,

    #[command(flatten)]
    whose: Whose,
}

fn fetch(args: &FetchArgs, context: &Context) -> Result<ExitCode, CliError> {
    let mut reports = Vec::new();
    for file in &args.files {
        let presented = judging::presented(file, &judging::read(file)?)?;
        let report = Report::parse(&presented.evidence().report).class_while(Class::NotAuthentic, file.display())?;
        args.whose.may_ask_for(&report, file, context)?;
        reports.push(report);
    }
    let kds = args.whose.client(args.mirror.as_ref(), true, context)?;
    let lines = |product: &ProductLine| {
        let (product, key) = (*product, SigningKey::Vcek);
        [Item::Chain { product, key }, Item::Crl { product, key }]
    };
    let items: Vec<_> = args.product.iter().flat_map(lines).collect();
    let (found, changes) = context.runtime()?.block_on(fetching::waited(&kds, context, async {
        let before = shelf(&kds).await;
        let mut all = kds.get(&items, now()).await;
        for report in &reports {
            let found = kds.collect(report, &Endorsements::new(), now()).await;
            all.endorsements.merge(&found.endorsements);
            all.items.extend(found.items);
            all.failures.extend(found.failures);
        }
        let changes = Changes { before, after: shelf(&kds).await, new: "fetched" };
        (all, changes)
    }));
    Ok(said(&found, &changes, &fetching::Asked::of(args.mirror.as_ref(), args.whose.allow_simulated), context))
}

/// What is kept of each item.
type Shelf = HashMap<Item, Vec<Held>>;
/// Root, first and last second, where it is of use; the number of a list.
type Held = (Option<(SpkiDigest, UnixTime, UnixTime)>, Option<u64>);

async fn shelf(kds: &Kds) -> Shelf {
    let mut shelf = Shelf::new();
    for kept in kds.kept(now()).await {
        shelf.entry(kept.item).or_default().push((kept.state.ok(), kept.number));
    }
    shelf
}

/// What became of items, by what was kept of them before and is now.
struct Changes {
    before: Shelf,
    after: Shelf,
    /// What is said of one that was not kept before.
    new: &'static str,
}

impl Changes {
    /// The word for one: new, `updated` where it took the place of another, `kept` where it is the one that was there; or `not kept`,
    /// which is a failure, whatever was got.
    fn of(&self, item: &Item) -> &'static str {
        match (self.before.get(item), self.after.get(item)) {
            (_, None) => NOT_KEPT,
            (None, Some(_)) => self.new,
            (Some(before), Some(after)) if before == after => "kept",
            (Some(_), Some(_)) => "updated",
        }
    }

    /// Where the folder took less than there was.
    fn lost(&self, items: &[Item]) -> Option<CliError> {
        let lost = self.each(items).filter(|(_, result)| *result == NOT_KEPT).count();
        let message = format!("{lost} of what is here is not kept: the folder of certificates and lists takes no more");
        (lost > 0).then(|| CliError::new(Class::Config, message).hint("make room there, then ask again"))
    }

    /// Each item once, with its word.
    fn each<'a>(&'a self, items: &'a [Item]) -> impl Iterator<Item = (&'a Item, &'static str)> {
        let once = items.iter().enumerate().filter(|(at, item)| !items[..*at].contains(item));
        once.map(|(_, item)| (item, self.of(item)))
    }

    fn json(&self, items: &[Item]) -> Value {
        let one = |(item, result): (&Item, &str)| {
            let mut value = json!(item);
            value["result"] = result.into();
            value
        };
        self.each(items).map(one).collect()
    }

    fn print(&self, items: &[Item]) {
        for (item, result) in self.each(items) {
            println!("{result:<8}  {item}");
        }
    }
}

const NOT_KEPT: &str = "not kept";

fn said(found: &Collected, changes: &Changes, asked: &fetching::Asked, context: &Context) -> ExitCode {
    let (certificates, lists) = (found.endorsements.certificates().len(), found.endorsements.crls().len());
    let lost = changes.lost(&found.items);
    if let Some(lost) = lost.as_ref().filter(|_| !context.json) {
        error::print(lost, false);
    }
    let last = found.failures.last().map(|one| fetching::failed(one, asked)).or(lost);
    if context.json {
        let (items, failures) = (changes.json(&found.items), fetching::json(&found.failures, asked));
        let mut value = json!({ "items": items, "certificates": certificates, "lists": lists, "failures": failures });
        if let Some(last) = &last {
            value["error"] = last.json()["error"].take();
        }
        println!("{value}");
    } else {
        changes.print(&found.items);
        fetching::print(&found.failures, asked);
    }
    last.map_or(ExitCode::SUCCESS, |failure| ExitCode::from(failure.class.code()))
}

/// Ask anew for the revocation lists that are kept; where none is, for those of every product line.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Each list is said: fetched, updated, or kept where the service's is the one that is here, or cannot be got. One with a lower number is \
refused.

Examples:
  coffer collateral refresh")]
struct RefreshArgs {
    /// Ask this service in place of AMD's: https, or http on this machine.
    #[arg(long, value_name = "URL")]
    mirror: Option<Base>,

    #[command(flatten)]
    whose: Whose,
}

fn refresh(args: &RefreshArgs, context: &Context) -> Result<ExitCode, CliError> {
    let kds = args.whose.client(args.mirror.as_ref(), true, context)?;
    let (found, changes) = context.runtime()?.block_on(fetching::waited(&kds, context, async {
        let before = shelf(&kds).await;
        let mut lists: Vec<_> = before.keys().copied().filter(|item| matches!(item, Item::Crl { .. })).collect();
        lists.sort_by_cached_key(ToString::to_string);
        if lists.is_empty() {
            lists.extend(ProductLine::ALL.map(|product| Item::Crl { product, key: SigningKey::Vcek }));
        }
        let mut found = kds.refresh(&lists, now()).await;
        // One that cannot be got anew stays.
        found.items =
            lists.into_iter().filter(|list| found.items.contains(list) || before.contains_key(list)).collect();
        (found, Changes { before, after: shelf(&kds).await, new: "fetched" })
    }));
    Ok(said(&found, &changes, &fetching::Asked::of(args.mirror.as_ref(), args.whose.allow_simulated), context))
}

/// List what is kept, and what is of no use now.
#[derive(Debug, clap::Args)]
#[command(visible_alias = "list", after_help = "Examples:\n  coffer collateral ls")]
struct ListArgs {
    #[command(flatten)]
    whose: Whose,
}

fn list(args: &ListArgs, context: &Context) -> Result<ExitCode, CliError> {
    let kds = args.whose.client(None, false, context)?;
    let kept = context.runtime()?.block_on(kds.kept(now()));
    let dates =
        |kept: &coffer_kds::Kept| kept.state.as_ref().ok().map(|(_, from, to)| (from.to_string(), to.to_string()));
    let state = |kept: &coffer_kds::Kept| kept.state.as_ref().err().map_or("of use".to_owned(), |unfit| chain(unfit));
    if context.json {
        let one = |kept: &coffer_kds::Kept| {
            let (from, to) = dates(kept).unzip();
            let root = kept.state.as_ref().ok().map(|(root, ..)| root);
            json!({ "item": kept.item, "file": kept.file, "root": root, "from": from, "to": to, "number": kept.number,
                "of_use": kept.state.is_ok(), "state": state(kept) })
        };
        println!("{}", kept.iter().map(one).collect::<Value>());
    } else {
        let row = |kept: &coffer_kds::Kept| {
            let number = kept.number.map_or_else(String::new, |number| number.to_string());
            vec![kept.item.to_string(), number, dates(kept).unwrap_or_default().1, state(kept)]
        };
        table::print(&["ITEM", "NUMBER", "UNTIL", "STATE"], &kept.iter().map(row).collect::<Vec<_>>());
    }
    Ok(ExitCode::SUCCESS)
}

/// Take in certificates and lists: files, or folders under AMD's names, under those of `coffer verify --certs`, or any.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Each item is said: imported, updated (in place of one that was kept), kept (it was here), refused. Exit status: 0 all or some of it is \
kept, 3 the folder takes no more, 5 nothing in it is authentic.

Examples:
  coffer collateral import medium
  coffer collateral import vlek.der ask.pem crl.der")]
struct ImportArgs {
    /// Files or folders.
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,

    #[command(flatten)]
    whose: Whose,
}

fn import(args: &ImportArgs, context: &Context) -> Result<ExitCode, CliError> {
    let kds = args.whose.client(None, false, context)?;
    let (done, changes) = context.runtime()?.block_on(async {
        let before = shelf(&kds).await;
        let done = kds.import(&args.paths, now()).await;
        (done, Changes { before, after: shelf(&kds).await, new: "imported" })
    });
    let done = done.class(Class::Config)?;
    let simulated = done.refused.iter().any(|(_, unfit)| unfit.is_of_another_root());
    let none = done.items.is_empty().then(|| {
        let none = CliError::new(Class::NotAuthentic, "nothing in it can be used");
        match (simulated, args.whose.allow_simulated) {
            (true, false) => none.hint(
                "it does not rest on AMD's roots: what a simulator made is taken in with --allow-simulated, that of another \
                 installation with --anchor FILE, its root, beside",
            ),
            (true, true) => none.hint(
                "it rests on no root that is believed here: --anchor FILE lists that of another installation's simulator, and AMD's is \
                 taken in without --allow-simulated",
            ),
            (false, _) => none,
        }
    });
    let none = none.or_else(|| changes.lost(&done.items));
    if context.json {
        let refused = done.refused.iter().map(|(path, unfit)| json!({ "file": path, "error": chain(unfit) }));
        let mut value = json!({ "items": changes.json(&done.items), "refused": refused.collect::<Value>() });
        if let Some(none) = &none {
            value["error"] = none.json()["error"].take();
        }
        println!("{value}");
    } else {
        changes.print(&done.items);
        for (path, unfit) in &done.refused {
            println!("refused   {}: {}", path.display(), chain(unfit));
        }
        if none.is_none() && !done.items.iter().any(|item| matches!(item, Item::Crl { .. })) && refused_a_list(&done) {
            error::warn(
                "no revocation list was taken in, and reports are refused without one: where the medium's is over, take the list of \
                 today from where there is a network",
            );
        }
        if let Some(none) = &none {
            error::print(none, false);
        }
    }
    Ok(none.map_or(ExitCode::SUCCESS, |none| ExitCode::from(none.class.code())))
}

/// One of what was refused is a list.
fn refused_a_list(done: &coffer_kds::Imported) -> bool {
    done.refused.iter().any(|(_, unfit)| matches!(unfit, Unfit::Crl(_) | Unfit::Older { .. } | Unfit::Unrevoked { .. }))
}

/// Write what is kept and of use into a folder, under AMD's names, for a machine without a network.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit status: 0 written, 3 nothing that is kept is of use now.

Examples:
  coffer collateral export --out medium")]
struct ExportArgs {
    /// Folder, made if it is not there. Below it no link is followed.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    #[command(flatten)]
    whose: Whose,
}

fn export(args: &ExportArgs, context: &Context) -> Result<ExitCode, CliError> {
    let kds = args.whose.client(None, false, context)?;
    let exported = context.runtime()?.block_on(kds.export(&args.out, now())).class(Class::Config)?;
    let without: Vec<String> = exported.without_list.iter().map(ToString::to_string).collect();
    let written = exported.files;
    if written.is_empty() {
        let message = format!("nothing that is kept is of use now: {} was not written", args.out.display());
        return Err(CliError::new(Class::Config, message).hint(
            "`coffer collateral ls` says what there is; fetch or refresh it where there is a network, or import it",
        ));
    }
    if context.json {
        println!("{}", json!({ "files": written, "without_list": without }));
    } else {
        for path in written {
            println!("{}", path.display());
        }
        for product in without {
            eprintln!(
                "coffer: no revocation list of {product} is of use now, and its reports are refused without one: `coffer \
                 collateral refresh` asks for it"
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_folder_did_not_take_is_said_and_is_a_failure() {
        let item = |product| Item::Crl { product, key: SigningKey::Vcek };
        let all = [ProductLine::Milan, ProductLine::Genoa, ProductLine::Turin].map(item);
        let of = |numbers: &[Option<u64>]| -> Shelf {
            let held = all.iter().zip(numbers).filter(|(_, number)| number.is_some());
            held.map(|(item, number)| (*item, vec![(None, *number)])).collect()
        };
        let words = |before: &[Option<u64>], after: &[Option<u64>]| {
            let changes = Changes { before: of(before), after: of(after), new: "fetched" };
            let words: Vec<_> = changes.each(&all).map(|(_, word)| word).collect();
            (words, changes.lost(&all).map(|failure| failure.class))
        };
        let held = words(&[None, Some(1), Some(1)], &[Some(1), Some(1), Some(2)]);
        assert_eq!(held, (vec!["fetched", "kept", "updated"], None));
        let lost = words(&[None, Some(1), Some(1)], &[None, None, Some(1)]);
        assert_eq!(lost, (vec!["not kept", "not kept", "kept"], Some(Class::Config)));
    }
}
