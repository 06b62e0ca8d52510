//! The functions called as C calls them, also wrongly.

use std::ffi::CStr;
use std::ptr;

use coffer_verifier_c::abi::{
    Appraisal, Question, Status, Verdict, coffer_appraisal_free, coffer_appraisal_json, coffer_appraisal_verdict,
    coffer_appraisal_why, coffer_question_cert_table, coffer_question_certificates, coffer_question_crl,
    coffer_question_error, coffer_question_evidence, coffer_question_free, coffer_question_judge, coffer_question_new,
    coffer_question_policy, coffer_question_report_data, coffer_question_simulated_root, coffer_question_waive_crl,
    coffer_question_waive_report_data,
};

fn error(question: *const Question) -> String {
    // SAFETY: of coffer_question_new or null, and the text is read before the next call.
    unsafe { CStr::from_ptr(coffer_question_error(question)) }.to_str().unwrap().to_owned()
}

#[test]
fn null_is_refused_everywhere_and_freed_as_nothing() {
    let none = ptr::null_mut::<Question>();
    let mut appraisal = ptr::null_mut::<Appraisal>();
    // SAFETY: null is allowed by every function, and no bytes are named.
    unsafe {
        let calls = [coffer_question_evidence, coffer_question_cert_table, coffer_question_certificates];
        let more = [coffer_question_crl, coffer_question_report_data, coffer_question_simulated_root];
        for call in calls.into_iter().chain(more) {
            assert_eq!(call(none, ptr::null(), 0), Status::Invalid);
        }
        assert_eq!(coffer_question_policy(none, ptr::null(), 0), Status::Invalid);
        assert_eq!(coffer_question_waive_crl(none), Status::Invalid);
        assert_eq!(coffer_question_waive_report_data(none), Status::Invalid);
        assert_eq!(coffer_question_judge(none, 0, &raw mut appraisal), Status::Invalid);
        assert_eq!(coffer_appraisal_verdict(ptr::null()), Verdict::NotAuthentic);
        assert_eq!(CStr::from_ptr(coffer_appraisal_json(ptr::null())), c"null");
        assert_eq!(CStr::from_ptr(coffer_appraisal_why(ptr::null())), c"no appraisal");
        coffer_appraisal_free(ptr::null_mut());
        coffer_question_free(none);
    }
    assert!(appraisal.is_null());
    assert_eq!(error(none), "no question");
}

#[test]
fn what_is_not_said_gives_no_appraisal_and_says_what() {
    let question = coffer_question_new();
    let mut appraisal = ptr::null_mut::<Appraisal>();
    let report = [0_u8; 1184];
    // SAFETY: the question is alive until it is freed, slices have the lengths that are named.
    unsafe {
        assert_eq!(coffer_question_judge(question, 0, ptr::null_mut()), Status::Invalid, "no place for it");
        assert_eq!(coffer_question_judge(question, 0, &raw mut appraisal), Status::Invalid);
        assert!(appraisal.is_null() && error(question).contains("\nhint: "), "{}", error(question));
        assert_eq!(coffer_question_evidence(question, report.as_ptr(), report.len()), Status::Ok);
        assert_eq!(error(question), "", "what went well takes the words away");
        assert_eq!(coffer_question_policy(question, c"strict".as_ptr(), 6), Status::Ok);
        assert_eq!(coffer_question_judge(question, 0, &raw mut appraisal), Status::Invalid, "it can be said later");
        assert_eq!(coffer_question_report_data(question, report.as_ptr(), 64), Status::Ok);
        // Seconds of any size are a time.
        for now in [i64::MIN, 0, i64::MAX] {
            assert_eq!(coffer_question_judge(question, now, &raw mut appraisal), Status::Ok);
            assert_eq!(coffer_appraisal_verdict(appraisal), Verdict::NotAuthentic);
            let why = CStr::from_ptr(coffer_appraisal_why(appraisal)).to_str().unwrap();
            assert!(why.starts_with("report-malformed: "), "{why}");
            coffer_appraisal_free(appraisal);
        }
        coffer_question_free(question);
    }
}

#[test]
fn a_question_of_which_one_word_was_not_taken_is_never_judged() {
    type Setter = unsafe fn(*mut Question) -> Status;
    let report = [0_u8; 1184];
    // SAFETY: of every one: the question is alive, slices have the lengths that are named, null goes with none.
    let setters: [(&str, Setter); 9] = [
        ("no bytes", |q| unsafe { coffer_question_evidence(q, ptr::null(), 1184) }),
        ("no such length", |q| unsafe { coffer_question_evidence(q, b"x".as_ptr(), usize::MAX) }),
        ("evidence", |q| unsafe { coffer_question_evidence(q, b"x".as_ptr(), 1) }),
        ("table", |q| unsafe { coffer_question_cert_table(q, [0; 24].as_ptr(), 24) }),
        ("certificates", |q| unsafe { coffer_question_certificates(q, b"x".as_ptr(), 1) }),
        ("list", |q| unsafe { coffer_question_crl(q, b"x".as_ptr(), 1) }),
        ("policy", |q| unsafe { coffer_question_policy(q, b"\xff".as_ptr().cast(), 1) }),
        ("REPORT_DATA", |q| unsafe { coffer_question_report_data(q, b"x".as_ptr(), 1) }),
        ("root", |q| unsafe { coffer_question_simulated_root(q, b"x".as_ptr(), 1) }),
    ];
    for (name, fail) in setters {
        let question = coffer_question_new();
        let mut appraisal = ptr::null_mut::<Appraisal>();
        // SAFETY: the question is alive until it is freed, slices have the lengths that are named.
        unsafe {
            // A whole question, which was judged before.
            assert_eq!(coffer_question_evidence(question, report.as_ptr(), report.len()), Status::Ok);
            assert_eq!(coffer_question_cert_table(question, [0; 24].as_ptr(), 24), Status::Ok);
            assert_eq!(coffer_question_policy(question, c"strict".as_ptr(), 6), Status::Ok);
            assert_eq!(coffer_question_waive_report_data(question), Status::Ok);
            assert_eq!(coffer_question_judge(question, 0, &raw mut appraisal), Status::Ok, "{name}");
            coffer_appraisal_free(appraisal);
            assert_eq!(fail(question), Status::Invalid, "{name}");
            let why = error(question);
            assert!(why.contains("\nhint: "), "{name}: {why}");
            // Whoever does not look goes on.
            assert_eq!(coffer_question_waive_crl(question), Status::Spoiled, "{name}");
            assert_eq!(coffer_question_policy(question, c"strict".as_ptr(), 6), Status::Spoiled, "{name}");
            assert_eq!(coffer_question_judge(question, 0, &raw mut appraisal), Status::Spoiled, "{name}");
            assert!(appraisal.is_null(), "{name}");
            assert_eq!((error(question), coffer_appraisal_verdict(appraisal)), (why, Verdict::NotAuthentic), "{name}");
            coffer_question_free(question);
        }
    }
}
