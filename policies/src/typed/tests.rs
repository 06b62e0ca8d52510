use std::collections::BTreeSet;

use coffer_verifier::STRICT;

use super::*;

fn found(text: &str) -> Vec<(u32, &'static str)> {
    lint_typed("p.toml", text, Guests::Here).into_iter().map(|one| (one.line, one.code)).collect()
}

fn hex(digit: &str, bytes: usize) -> String {
    digit.repeat(2 * bytes)
}

/// A policy that nothing speaks against.
fn good() -> String {
    format!(
        "measurements = [\"{}\"]\nproducts = [\"Genoa\"]\nmax_crl_age = \"30d\"\nmax_policy_age = \"7d\"\n\n\
         [guest_policy]\ndebug = \"forbidden\"\nsmt = \"forbidden\"\n\n\
         [[tcb]]\nproduct = \"Genoa\"\nmodel = 0x11\nstepping = 1\nreported = {{ snp = 0x1b, microcode = 0x56 }}\n",
        hex("1", 48)
    )
}

#[test]
fn every_kind_is_found_at_its_line_and_what_is_right_is_not() {
    assert_eq!(found(&good()), []);
    let (m, h, k) = (hex("1", 48), hex("2", 32), hex("3", 48));
    let signer = |key: &str| {
        format!(
            "[[signers]]\nauthor_key = \"{key}\"\nfamily_id = \"{}\"\nimage_id = \"{}\"\nminimum_guest_svn = 1\n",
            hex("4", 16),
            hex("5", 16)
        )
    };
    let top = |line: &str| format!("{line}\n{}", good());
    let but = |from: &str, to: &str| good().replacen(from, to, 1);
    let any = but(&format!("[\"{m}\"]"), "\"any\"");
    let mut kinds = BTreeSet::new();
    for (text, wanted) in [
        ("measurements = \n".to_owned(), vec![(1, "mistake")]),
        (top("vmpl = [0]"), vec![(1, "mistake")]),
        (any.clone(), vec![(1, "any-guest")]),
        (format!("host_data = [\"{h}\"]\n{any}"), vec![(1, "host-data-alone")]),
        (but("debug = \"forbidden\"", "debug = \"any\""), vec![(7, "debug-allowed")]),
        (but("debug = \"forbidden\"", "debug = \"required\""), vec![(7, "debug-allowed")]),
        (but("smt = \"forbidden\"", "migrate_ma = \"any\""), vec![(8, "migration-allowed")]),
        (top("vmpls = [0, 1]"), vec![(1, "other-vmpls")]),
        (format!("measurements = [\"{m}\"]\n"), vec![(1, "no-minimum-tcb")]),
        (format!("tcb = \"any\"\nmeasurements = [\"{m}\"]\n"), vec![(1, "no-minimum-tcb")]),
        (but("stepping = 1\n", ""), vec![(10, "microcode-of-any-model")]),
        (top("minimum_guest_svn = 3"), vec![(1, "unsigned-version")]),
        (format!("tcb = []\nmeasurements = [\"{m}\"]\n"), vec![(1, "all-refused")]),
        (but("[\"Genoa\"]", "[\"Genoa\", \"Milan\"]"), vec![(2, "all-refused")]),
        (but("[\"Genoa\"]", "[]"), vec![(2, "all-refused")]),
        (top("vmpls = []"), vec![(1, "all-refused")]),
        (top("chips = []"), vec![(1, "all-refused")]),
        (top("host_data = []"), vec![(1, "all-refused")]),
        (top("pairs = []"), vec![(1, "all-refused")]),
        (top("signers = []"), vec![(1, "all-refused")]),
        (top("id_keys = []"), vec![(1, "all-refused")]),
        (top("author_keys = []"), vec![(1, "all-refused")]),
        (but(&format!("[\"{m}\"]"), "[]"), vec![(1, "all-refused")]),
        (
            but("products = [\"Genoa\"]", "denied_products = [\"Milan\", \"Genoa\", \"Turin\"]"),
            vec![(2, "all-refused")],
        ),
        (but(&m, &hex("0", 48)), vec![(1, "never-matches")]),
        (top(&format!("id_keys = [\"{}\"]", hex("0", 48))), vec![(1, "never-matches")]),
        (
            good()
                + &format!(
                    "[[pairs]]\nmeasurement = \"{m}\"\nhost_data = \"{h}\"\n[[pairs]]\nmeasurement = \"{k}\"\nhost_data = \"{h}\"\n"
                ),
            vec![(18, "never-matches")],
        ),
        (top(&format!("author_keys = [\"{}\"]", hex("6", 48))) + &signer(&k), vec![(16, "never-matches")]),
        (top("pairs = \"any\"") + &signer(&k), vec![(16, "no-effect")]),
        (top("denied_products = [\"Milan\"]"), vec![(1, "no-effect")]),
        (
            top(&format!("chips = [\"{}\"]\ndenied_chips = [\"{}\"]", hex("7", 64), hex("8", 64))),
            vec![(2, "no-effect")],
        ),
        (but("30d", "61d"), vec![(3, "no-effect")]),
        (but("\"7d\"", "\"400d\""), vec![(4, "long-age")]),
        (top("max_manifest_age = \"367d\""), vec![(1, "long-age")]),
        (but(&m, &format!("{m}\", \"{m}")), vec![(1, "twice")]),
        (good() + &signer(&k) + &signer(&k), vec![(20, "twice")]),
        (
            good()
                + "[[tcb]]\nproduct = \"Genoa\"\nmodel = 0x11\nstepping = 1\nreported = { snp = 0x1b, microcode = 0x56 }\n",
            vec![(15, "twice")],
        ),
    ] {
        assert_eq!(found(&text), wanted, "{text}");
        kinds.extend(wanted.into_iter().map(|(_, code)| code));
    }
    assert_eq!(kinds, TYPED_FINDINGS.into_iter().map(|(code, _)| code).collect());
    for text in [
        top(&format!("minimum_guest_svn = 3\nid_keys = [\"{k}\"]")),
        top(&format!("author_keys = [\"{k}\"]")) + &signer(&k),
        good() + &format!("[[pairs]]\nmeasurement = \"{m}\"\nhost_data = \"{h}\"\n"),
        any.clone() + &signer(&k),
        top(&format!("denied_chips = [\"{}\"]", hex("8", 64))),
    ] {
        assert_eq!(found(&text), [], "{text}");
    }
}

#[test]
fn what_is_shipped_names_no_guest_and_has_no_other_fault() {
    assert_eq!(lint_typed("strict", STRICT, Guests::Elsewhere), []);
    let all = lint_typed("strict", STRICT, Guests::Here);
    assert!(
        all.len() == 1
            && all[0].code == "any-guest"
            && STRICT.lines().nth(all[0].line as usize - 1).unwrap().starts_with("measurements")
    );
}

#[test]
fn every_mistake_has_its_line_and_no_words_of_a_text_that_nobody_wrote() {
    let text = "vmpl = [0]\nvmpls = [9]\nmax_crl_age = \"0d\"\n[guest_policy]\nsmt = \"no\"\nsmtt = \"any\"\n\n[[tcb]]\n\
                product = \"Genoa\"\nreported = { ucode = 1 }\n\n[[tcb]]\nproduct = \"Milan\"\nreported = { fmc = 1 }\n";
    let all = lint_typed("p.toml", text, Guests::Here);
    let places: Vec<_> = all.iter().map(|one| one.line).collect();
    assert_eq!(places, [1, 1, 2, 3, 5, 6, 10, 12], "{all:#?}");
    for (one, words) in all.iter().zip([
        "no `measurements`",
        "unknown field `vmpl`",
        "VMPL 9 does not exist",
        "expected a number above zero",
        "unknown variant `no`",
        "no bit named smtt",
        "unknown field `ucode`",
        "Milan has no FMC level",
    ]) {
        let (code, message) = (one.code, &one.message);
        assert!(code == "mistake" && message.contains(words), "{words}: {message}");
        assert!(!message.contains(['\n', '|', '^']) && !message.contains("line "), "{message}");
    }
    let both =
        format!("{}denied = 1\n", "measurements = \"any\"\nproducts = [\"Milan\"]\ndenied_products = [\"Milan\"]\n");
    assert_eq!(found(&both.replace("denied = 1\n", "")), [(3, "mistake")]);
    assert_eq!(found(&both), [(4, "mistake")]);
    assert_eq!(found("a = 1\nb = = 2\n"), [(2, "mistake")]);
    let json = lint_typed("input.json", "{\"result\": {}}", Guests::Here);
    assert_eq!(json[0].message, "a JSON text where a policy (TOML) is due");
    let mut tar = vec![b'a'; 257];
    tar.extend_from_slice(b"ustar\0");
    let tar = lint_typed("team.tar", str::from_utf8(&tar).unwrap(), Guests::Here);
    assert!(tar[0].message.contains("not compressed") && tar[0].message.contains("tar -z"), "{tar:?}");
}

#[test]
fn every_element_and_every_level_is_told_with_its_place_and_value() {
    let text = "measurements = [\"zz\", \"aa\"]\nchips = [\n  \"59790fb1c39f35c1\",\n  \"qq\",\n]\nminimum_abi = [1, 300]\n\
                [[tcb]]\nproduct = \"Rome\"\nreported = { snp = 300, tee = 0 }\nsource = 5\n\n\
                [[tcb]]\nreported = { snp = 0, microcode = 7 }\n\n[[pairs]]\nmeasurement = \"00\"\n";
    let all = lint_typed("p.toml", text, Guests::Here);
    let said: Vec<_> = all.iter().map(|one| (one.line, one.column, one.message.as_str())).collect();
    for (found, (line, column, words)) in said.iter().zip([
        (1, 17, "measurements[0] is \"zz\": MEASUREMENT is not hexadecimal, expected 96 digits"),
        (1, 23, "measurements[1] is \"aa\": MEASUREMENT is 48 bytes, found 1"),
        (3, 3, "chips[0] is \"59790fb1c39f35c1\": CHIP_ID is 64 bytes, found 8; of a Turin's"),
        (4, 3, "chips[1] is \"qq\": CHIP_ID is not hexadecimal"),
        (6, 1, "invalid value: integer `300`, expected a whole number from 0 to 255"),
        (8, 1, "tcb[0].product: unknown variant `Rome`"),
        (9, 14, "tcb[0].reported.snp: invalid value: integer `300`, expected a whole number from 0 to 255"),
        (10, 1, "tcb[0].source: found integer `5`"),
        (12, 1, "missing field `product`"),
        (15, 1, "missing field `host_data`"),
        (16, 1, "pairs[0].measurement is \"00\": MEASUREMENT is 48 bytes"),
    ]) {
        assert!((found.0, found.1) == (line, column) && found.2.starts_with(words), "{found:?}: {words}");
    }
    assert_eq!(said.len(), 11, "{said:#?}");
}
