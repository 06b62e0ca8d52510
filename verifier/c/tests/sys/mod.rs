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
fn what_is_not_said_or_wrong_gives_no_appraisal_and_says_what() {
    let question = coffer_question_new();
    let mut appraisal = ptr::null_mut::<Appraisal>();
    let report = [0_u8; 1184];
    // SAFETY: the question is alive until it is freed, slices have the lengths that are named, null goes with none.
    unsafe {
        assert_eq!(coffer_question_judge(question, 0, ptr::null_mut()), Status::Invalid, "no place for it");
        assert_eq!(coffer_question_evidence(question, ptr::null(), 1184), Status::Invalid, "null is no bytes");
        assert_eq!(coffer_question_evidence(question, report.as_ptr(), usize::MAX), Status::Invalid, "no such length");
        assert_eq!(coffer_question_judge(question, 0, &raw mut appraisal), Status::Invalid);
        assert!(appraisal.is_null() && error(question).contains("\nhint: "), "{}", error(question));
        assert_eq!(coffer_question_evidence(question, report.as_ptr(), report.len()), Status::Ok);
        assert_eq!(error(question), "", "what went well takes the words away");
        assert_eq!(coffer_question_policy(question, b"\xff".as_ptr().cast(), 1), Status::Invalid);
        assert_eq!(coffer_question_policy(question, c"strict".as_ptr(), 6), Status::Ok);
        assert_eq!(coffer_question_report_data(question, report.as_ptr(), 63), Status::Invalid);
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
