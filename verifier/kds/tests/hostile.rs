//! Folders and media that somebody else wrote.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use coffer_kds::{Item, Kds, Unfit};
use coffer_simulator::pem;
use coffer_verifier::abi::{ProductLine, SigningKey};

use crate::common::{NOW, Service, collect, holds, installation, report};

const MILAN: ProductLine = ProductLine::Milan;
const CHAIN: Item = Item::Chain { product: MILAN, key: SigningKey::Vcek };

/// As PEM, the certificate and so many like it whose signatures do not hold.
fn and_forged(der: &[u8], forged: u32) -> String {
    let mut all = pem("CERTIFICATE", der);
    for number in 0..forged {
        let mut one = der.to_vec();
        let end = one.len() - 4;
        one[end..].copy_from_slice(&number.to_be_bytes());
        all += &pem("CERTIFICATE", &one);
    }
    all
}

fn pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// What hangs for good is a failure, and not a test that goes on for ever.
async fn ends<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    tokio::time::timeout(Duration::from_mins(1), tokio::spawn(work)).await.expect("it does not end").unwrap()
}

#[tokio::test]
async fn an_intermediate_is_paired_with_roots_that_signed_it_and_no_others() {
    let service = Service::honest().await;
    let (kept, from) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let kds = Kds::open(service.options().kept_in(kept.path()).offline()).unwrap();
    let ark = installation().anchor(MILAN).unwrap().ark;
    fs::write(from.path().join("ark.pem"), and_forged(ark, 30)).unwrap();
    fs::write(from.path().join("ask.pem"), and_forged(installation().ask(MILAN).unwrap(), 30)).unwrap();
    let done = kds.import(&[from.path().to_owned()], NOW).await.unwrap();
    assert_eq!(done.items, [CHAIN]);
    // Each that does not hold is refused once, and not once with each root.
    assert_eq!(done.refused.len(), 30, "{:?}", done.refused);
    assert!(done.refused.iter().all(|(path, _)| path.ends_with("ask.pem")), "{:?}", done.refused);

    // One file in the folder is no more.
    let chain = and_forged(installation().ask(MILAN).unwrap(), 20) + &and_forged(ark, 20);
    let file = kds.kept(NOW).await[0].file.clone();
    fs::write(&file, chain).unwrap();
    let listed = kds.kept(NOW).await;
    assert_eq!(listed.iter().filter(|one| one.state.is_ok()).count(), 1);
    assert_eq!(listed.len(), 21);
}

#[tokio::test]
async fn an_import_takes_in_so_much_and_names_what_is_beyond() {
    let service = Service::honest().await;
    let (kept, from) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let most = 4 << 10;
    let mut options = service.options().kept_in(kept.path()).offline();
    options.max_import = most;
    let kds = Kds::open(options).unwrap();
    let ark = installation().anchor(MILAN).unwrap().ark;
    let chain = and_forged(installation().ask(MILAN).unwrap(), 0) + &and_forged(ark, 0);
    fs::write(from.path().join("1.pem"), chain).unwrap();
    for number in 2..10 {
        fs::write(from.path().join(format!("{number}.pem")), and_forged(ark, 0)).unwrap();
    }
    let done = kds.import(&[from.path().to_owned()], NOW).await.unwrap();
    assert_eq!(done.items, [CHAIN]);
    assert!(done.refused.len() >= 7, "{:?}", done.refused);
    assert!(done.refused.iter().all(|(_, unfit)| *unfit == Unfit::TooMuch { most }), "{:?}", done.refused);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipe_in_place_of_a_file_is_no_file_and_holds_nobody() {
    let service = Service::honest().await;
    let kept = tempfile::tempdir().unwrap();
    let report = report(MILAN);
    let open = || Kds::open(service.options().kept_in(kept.path())).unwrap();
    collect(&open(), &report).await;
    let files: Vec<_> = open().kept(NOW).await.into_iter().map(|one| one.file).collect();
    assert_eq!(files.len(), 3);
    let number = files.iter().find(|file| file.ends_with("crl.der")).unwrap().with_file_name("crl.number");
    for file in files.iter().chain([&number]) {
        fs::remove_file(file).unwrap();
        pipe(file);
        let (kds, theirs) = (open(), report.clone());
        ends(async move {
            kds.kept(NOW).await;
            assert!(holds(&theirs, &collect(&kds, &theirs).await));
        })
        .await;
        // Nor is it replaced: whoever made it may say why.
        assert!(!fs::symlink_metadata(file).unwrap().is_file(), "{}", file.display());
        fs::remove_file(file).unwrap();
        collect(&open(), &report).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_opens_nothing_but_regular_files() {
    let service = Service::honest().await;
    let (kept, from) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let kds = Kds::open(service.options().kept_in(kept.path()).offline()).unwrap();
    pipe(&from.path().join("crl.der"));
    let (ark, ask) = (installation().anchor(MILAN).unwrap().ark, installation().ask(MILAN).unwrap());
    fs::write(from.path().join("ask.pem"), and_forged(ask, 0) + &and_forged(ark, 0)).unwrap();
    let named = [from.path().to_owned(), from.path().join("crl.der"), "/dev/zero".into()];
    let done = ends(async move { kds.import(&named, NOW).await.unwrap() }).await;
    assert_eq!(done.items, [CHAIN]);
    let unread: Vec<_> = done.refused.iter().map(|(path, _)| path.clone()).collect();
    assert_eq!(unread, [from.path().join("crl.der"), "/dev/zero".into()], "those that were named");
    assert!(done.refused.iter().all(|(_, unfit)| matches!(unfit, Unfit::Unread { .. })));
}

#[tokio::test]
async fn a_leaf_in_use_is_not_among_the_oldest_that_make_room() {
    let service = Service::honest().await;
    let kept = tempfile::tempdir().unwrap();
    let mut options = service.options().kept_in(kept.path());
    (options.max_leaves, options.each_chip.burst) = (8, 100);
    let (chip, tcb) = (installation().chip_id(MILAN), coffer_simulator::default_tcb(MILAN));
    let leaf = |microcode: u8| {
        let mut tcb = tcb;
        tcb.microcode -= microcode;
        Item::Vcek { product: MILAN, chip, tcb }
    };
    let first = Kds::open(options.clone()).unwrap();
    first.get(&[leaf(0), leaf(1)], NOW).await;
    let long_ago = std::time::SystemTime::now() - Duration::from_hours(24 * 30);
    let mut files = Vec::new();
    for one in first.kept(NOW).await.into_iter().filter(|one| matches!(one.item, Item::Vcek { .. })) {
        fs::File::open(&one.file).unwrap().set_modified(long_ago).unwrap();
        files.push(one);
    }
    let file = |item: Item| files.iter().find(|one| one.item == item).unwrap().file.clone();
    let kds = Kds::open(options).unwrap();
    assert_eq!(kds.get(&[leaf(0)], NOW).await.failures, []);
    // Marked beside its use.
    while fs::metadata(file(leaf(0))).unwrap().modified().unwrap() == long_ago {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for number in 2..9 {
        assert_eq!(kds.get(&[leaf(number)], NOW).await.failures, []);
    }
    assert_eq!((file(leaf(0)).exists(), file(leaf(1)).exists()), (true, false));
}
