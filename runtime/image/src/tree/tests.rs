use super::*;

fn directory() -> Kind {
    Kind::Directory(BTreeMap::new())
}

fn file(length: u64) -> Kind {
    Kind::File(Extent { offset: 0, length })
}

fn tree(entries: &[(&str, Kind)]) -> Tree {
    let mut tree = Tree::new();
    tree.begin_layer();
    add(&mut tree, entries);
    tree
}

fn add(tree: &mut Tree, entries: &[(&str, Kind)]) {
    for (path, kind) in entries {
        tree.place(path.as_bytes(), Meta::default(), kind.clone()).unwrap();
    }
}

fn has(tree: &Tree, path: &str) -> bool {
    tree.lookup(path.as_bytes()).unwrap().is_some()
}

#[test]
fn refuses_paths_that_climb_and_names_that_are_none() {
    let mut tree = Tree::new();
    let mut place = |path: &[u8]| tree.place(path, Meta::default(), file(0)).unwrap_err();
    assert!(matches!(place(b"../etc/passwd"), TreeError::Traversal { .. }));
    assert!(matches!(place(b"a/../../b"), TreeError::Traversal { .. }));
    assert!(matches!(place(b"/.."), TreeError::Traversal { .. }));
    assert!(matches!(place(&[b'x'; 256]), TreeError::Name { .. }));
    assert!(matches!(place(b"a\0b"), TreeError::Name { .. }));
    assert_eq!(place(b"./"), TreeError::Root);
    assert!(tree.is_empty());
}

#[test]
fn symlinked_parents_stay_inside_the_tree() {
    let up = Kind::Symlink(b"../../../..".to_vec());
    let absolute = Kind::Symlink(b"/target".to_vec());
    let tree = tree(&[("up", up), ("up/etc", file(1)), ("abs", absolute), ("abs/new/file", file(2))]);
    assert!(has(&tree, "etc"), "`..` stops at the root");
    assert!(has(&tree, "target/new/file"), "a dangling link names the directory to make");
    assert!(matches!(tree.node(tree.lookup(b"abs").unwrap().unwrap()).kind, Kind::Symlink(_)));
}

#[test]
fn symlink_loops_and_files_as_parents_are_errors() {
    let mut tree = tree(&[("a", Kind::Symlink(b"b".to_vec())), ("b", Kind::Symlink(b"a".to_vec())), ("f", file(1))]);
    let mut place = |path: &[u8]| tree.place(path, Meta::default(), file(0)).unwrap_err();
    assert!(matches!(place(b"a/x"), TreeError::TooManyLinks { .. }));
    assert!(matches!(place(b"f/x"), TreeError::NotADirectory { .. }));
}

#[test]
fn depth_is_bounded_even_through_links() {
    let mut tree = Tree::new();
    let deep = "d/".repeat(900);
    tree.place(deep.as_bytes(), Meta::default(), directory()).unwrap();
    tree.place(b"l", Meta::default(), Kind::Symlink(deep.into_bytes())).unwrap();
    let error = tree.place(format!("l/{}", "e/".repeat(200)).as_bytes(), Meta::default(), directory()).unwrap_err();
    assert!(matches!(error, TreeError::TooDeep { .. }));
}

#[test]
fn a_directory_over_a_directory_keeps_children_and_a_file_replaces_all() {
    let mut tree = tree(&[("d/x", file(1)), ("link", Kind::Symlink(b"d".to_vec()))]);
    let meta = Meta { mode: 0o700, uid: 7, ..Meta::default() };
    tree.place(b"d/", meta.clone(), directory()).unwrap();
    assert!(has(&tree, "d/x"));
    assert_eq!(tree.node(tree.lookup(b"d").unwrap().unwrap()).meta, meta);
    tree.place(b"link", meta, directory()).unwrap();
    assert!(!has(&tree, "link/x"), "a directory replaces a symlink instead of following it");
    add(&mut tree, &[("d", file(3))]);
    assert!(tree.lookup(b"d/x").is_err());
}

#[test]
fn whiteouts_hide_lower_layers_only() {
    let mut tree = tree(&[("d/a", file(1)), ("d/b", file(1)), ("d/sub/c", file(1)), ("e", file(1))]);
    tree.begin_layer();
    add(&mut tree, &[("d/a", file(2)), ("d/sub/new", file(2))]);
    for path in ["d/a", "d/b", "d/sub", "e", "nothing/here"] {
        tree.whiteout(path.as_bytes()).unwrap();
    }
    assert!(has(&tree, "d/a") && has(&tree, "d/sub/new"));
    assert!(!has(&tree, "d/b") && !has(&tree, "d/sub/c") && !has(&tree, "e"));
    assert_eq!(tree.whiteout(b"/").unwrap_err(), TreeError::Root);
}

#[test]
fn opaque_directories_hide_all_below_whatever_the_order() {
    for marker_first in [true, false] {
        let mut tree = tree(&[("d/old", file(1)), ("d/sub/old", file(1)), ("keep", file(1))]);
        tree.begin_layer();
        if marker_first {
            tree.opaque(b"d").unwrap();
        }
        add(&mut tree, &[("d", directory()), ("d/new", file(2)), ("d/sub", directory())]);
        if !marker_first {
            tree.opaque(b"d").unwrap();
        }
        assert!(has(&tree, "d/new") && has(&tree, "d/sub") && has(&tree, "keep"), "{marker_first}");
        assert!(!has(&tree, "d/old") && !has(&tree, "d/sub/old"), "{marker_first}");
    }
}

#[test]
fn hard_links_share_a_node_and_survive_its_first_name() {
    let mut tree = tree(&[("a", file(5)), ("dir/x", file(1))]);
    tree.link(b"b/c", b"/a").unwrap();
    assert_eq!(tree.lookup(b"a").unwrap(), tree.lookup(b"b/c").unwrap());
    tree.begin_layer();
    tree.whiteout(b"a").unwrap();
    assert!(has(&tree, "b/c"));
    for target in ["nothing", "dir"] {
        assert!(matches!(tree.link(b"z", target.as_bytes()).unwrap_err(), TreeError::LinkTarget { .. }));
    }
    assert!(matches!(tree.link(b"z", b"../a").unwrap_err(), TreeError::Traversal { .. }));
}

#[test]
fn symlink_targets_are_bounded() {
    let mut tree = Tree::new();
    for target in [vec![], vec![b'x'; 4096], b"a\0b".to_vec()] {
        let error = tree.place(b"l", Meta::default(), Kind::Symlink(target)).unwrap_err();
        assert!(matches!(error, TreeError::SymlinkTarget { .. }));
    }
}

/// A tree that may take so many steps.
fn within_steps(steps: u64) -> Tree {
    let mut tree = Tree::within(DEFAULT_MEMORY, steps);
    tree.begin_layer();
    tree
}

#[test]
fn a_directory_is_cleared_once_for_each_layer_however_often_it_is_said() {
    let mut tree = within_steps(10_000);
    for number in 0..1000 {
        add(&mut tree, &[(&format!("d/sub/{number}"), file(1))]);
    }
    // Two steps for each name so far. Each round would look at all of them again.
    for _ in 0..500 {
        tree.opaque(b"d/sub").unwrap();
        tree.opaque(b"d").unwrap();
        tree.whiteout(b"d").unwrap();
    }
    assert!(has(&tree, "d/sub/999"), "this layer put them there");
    tree.begin_layer();
    add(&mut tree, &[("d/sub/kept", file(1))]);
    tree.opaque(b"d").unwrap();
    assert!(has(&tree, "d/sub/kept") && !has(&tree, "d/sub/1"));
}

#[test]
fn every_way_to_make_work_ends_at_the_limit() {
    let chain = |tree: &mut Tree| {
        let target = format!("{}t", "a/../".repeat(800));
        add(tree, &[("a", directory()), ("t", directory()), ("l", Kind::Symlink(target.into_bytes()))]);
    };
    type Act = fn(&mut Tree) -> Result<(), TreeError>;
    let acts: [(&str, Act); 5] = [
        ("place", |tree| tree.place(b"l/x", Meta::default(), directory())),
        ("whiteout", |tree| tree.whiteout(b"l/x")),
        ("opaque", |tree| tree.opaque(b"l/x")),
        ("remove", |tree| tree.remove(b"l/x")),
        ("link", |tree| tree.link(b"y", b"l/f")),
    ];
    for (what, act) in acts {
        let mut tree = within_steps(20_000);
        chain(&mut tree);
        add(&mut tree, &[("t/f", file(0))]);
        let done = (0..100).take_while(|_| act(&mut tree).is_ok()).count();
        assert!((5..20).contains(&done), "{what}: {done} times");
        assert_eq!(act(&mut tree).unwrap_err(), TreeError::Work { limit: 20_000 }, "{what}");
    }
    // Names that are looked at in order to be hidden.
    let mut tree = within_steps(1500);
    for number in 0..1000 {
        add(&mut tree, &[(&format!("d/{number}"), file(1))]);
    }
    tree.begin_layer();
    assert_eq!(tree.opaque(b"d").unwrap_err(), TreeError::Work { limit: 1500 });
}
