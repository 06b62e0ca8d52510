//! The functions of the header, one by one. Their documentation is the header's.
//!
//! Each takes pointers that its caller vouches for, as `# Safety` of each says in the header's words: made by this library and not
//! freed, or as many readable bytes as are named.
#![allow(clippy::missing_safety_doc, reason = "the header says it once, for all of them")]

use std::ffi::{CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use coffer_verifier::{QuestionError, UnixTime};

/// How a call ended. It says nothing about evidence.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Done.
    Ok = 0,
    /// An argument is not what it should be, or something that must be said was not; coffer_question_error says what and why.
    /// Where it was to be said by this very call, the question is spoiled.
    Invalid = 1,
    /// A defect of this library. The question is spoiled.
    Internal = 2,
    /// An earlier call about this question failed, so that it does not ask what was meant. Nothing was done, nothing will be
    /// judged, and coffer_question_error says what failed first. Make a new question.
    Spoiled = 3,
}

/// What the judge said. Zero is none of them.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Authentic, and acceptable to the policy.
    Accepted = 1,
    /// Authentic, and not acceptable.
    Refused = 2,
    /// Not shown to be what AMD, or a listed root, vouches for.
    NotAuthentic = 3,
}

/// What is asked, as far as it was said.
#[derive(Default)]
pub struct Question {
    inner: coffer_verifier::Question,
    error: CString,
    /// Something was to be said, and was not.
    spoiled: bool,
}

/// What the judge said.
pub struct Appraisal {
    verdict: Verdict,
    json: CString,
    why: CString,
}

/// A text for C: what would end it early is replaced.
fn text(text: &str) -> CString {
    CString::new(text.replace('\0', "\u{fffd}")).unwrap_or_default()
}

/// Says something more of a question. Where that fails, whoever does not look would ask less than was meant, or about what was
/// there before: nothing is judged any more.
///
/// SAFETY of callers: as of [`with`].
unsafe fn say(
    question: *mut Question,
    act: impl FnOnce(&mut coffer_verifier::Question) -> Result<(), QuestionError>,
) -> Status {
    // SAFETY: as the caller of the library vouches for.
    let status = unsafe { with(question, act) };
    // SAFETY: the same.
    if let (Status::Invalid, Some(question)) = (status, unsafe { question.as_mut() }) {
        question.spoiled = true;
    }
    status
}

/// Does something with a question, and keeps what it says when it cannot.
///
/// SAFETY of callers: `question` is null, or of [`coffer_question_new`], not freed, and used by this thread alone.
unsafe fn with(
    question: *mut Question,
    act: impl FnOnce(&mut coffer_verifier::Question) -> Result<(), QuestionError>,
) -> Status {
    // SAFETY: as the caller of the library vouches for, see above.
    let Some(question) = (unsafe { question.as_mut() }) else { return Status::Invalid };
    if question.spoiled {
        return Status::Spoiled;
    }
    match catch_unwind(AssertUnwindSafe(|| act(&mut question.inner))) {
        Ok(Ok(())) => {
            question.error = CString::default();
            Status::Ok
        }
        Ok(Err(error)) => {
            question.error = text(&format!("{error}\nhint: {}", error.hint()));
            Status::Invalid
        }
        Err(_) => {
            *question = Question { error: text("a defect of this library"), spoiled: true, ..Question::default() };
            Status::Internal
        }
    }
}

/// The bytes a caller names; none where there are none.
///
/// SAFETY of callers: `bytes` is null with a `len` of 0, or `len` bytes are readable there during the call.
unsafe fn slice<'a>(bytes: *const u8, len: usize) -> &'a [u8] {
    if bytes.is_null() || len == 0 || isize::try_from(len).is_err() {
        return &[];
    }
    // SAFETY: not null, and as the caller of the library vouches for.
    unsafe { std::slice::from_raw_parts(bytes, len) }
}

/// A question of which nothing is said yet, but that a revocation list is required and AMD's roots are believed.
/// Free it with coffer_question_free.
#[unsafe(no_mangle)]
pub extern "C" fn coffer_question_new() -> *mut Question {
    catch_unwind(|| Box::into_raw(Box::<Question>::default())).unwrap_or(ptr::null_mut())
}

/// Ends a question. NULL is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coffer_question_free(question: *mut Question) {
    if !question.is_null() {
        // SAFETY: of coffer_question_new, and not freed before.
        let question = unsafe { Box::from_raw(question) };
        let _ = catch_unwind(AssertUnwindSafe(move || drop(question)));
    }
}

/// Why the last call about this question did not end well, and what helps; empty where it did. Of a spoiled question: what
/// spoiled it. Belongs to the question, until the next call about it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coffer_question_error(question: *const Question) -> *const c_char {
    // SAFETY: null, or of coffer_question_new.
    unsafe { question.as_ref() }.map_or(c"no question".as_ptr(), |question| question.error.as_ptr())
}

/// The evidence: a report of 1184 bytes, an Azure HCL blob, a CMW record or a TSM report.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coffer_question_evidence(question: *mut Question, bytes: *const u8, len: usize) -> Status {
    // SAFETY: as the header says.
    unsafe { say(question, |asked| asked.evidence(slice(bytes, len))) }
}

/// The certificate table that a host gave with a bare report; after the evidence.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coffer_question_cert_table(question: *mut Question, bytes: *const u8, len: usize) -> Status {
    // SAFETY: as the header says.
    unsafe { say(question, |asked| asked.cert_table(slice(bytes, len))) }
}

/// One more certificate in DER, or all of a PEM text. AMD's ARK, ASK and ASVK are known; the leaf is not.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coffer_question_certificates(question: *mut Question, bytes: *const u8, len: usize) -> Status {
    // SAFETY: as the header says.
    unsafe { say(question, |asked| asked.certificates(slice(bytes, len))) }
}

/// One more certificate revocation list in DER, or all of a PEM text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coffer_question_crl(question: *mut Question, bytes: *const u8, len: usize) -> Status {
    // SAFETY: as the header says.
    unsafe { say(question, |asked| asked.crl(slice(bytes, len))) }
}

/// Waives revocation. The appraisal says so.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coffer_question_waive_crl(question: *mut Question) -> Status {
    // SAFETY: as the header says.
    unsafe {
        say(question, |asked| {
            asked.waive_crl();
            Ok(())
        })
    }
}

/// The policy, TOML in UTF-8; the word strict is the built-in one. There is no default.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coffer_question_policy(question: *mut Question, toml: *const c_char, len: usize) -> Status {
    // SAFETY: as the header says. What is no UTF-8 is no TOML either, and is refused as that.
    unsafe { say(question, |asked| asked.policy(&String::from_utf8_lossy(slice(toml.cast(), len)))) }
}

/// The 64 bytes that REPORT_DATA must hold, made from a challenge of the caller's own. There is no default.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coffer_question_report_data(question: *mut Question, bytes: *const u8, len: usize) -> Status {
    // SAFETY: as the header says.
    unsafe { say(question, |asked| asked.report_data(slice(bytes, len))) }
}

/// Waives REPORT_DATA: the report may be old, and made for anybody. The appraisal says so.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coffer_question_waive_report_data(question: *mut Question) -> Status {
    // SAFETY: as the header says.
    unsafe {
        say(question, |asked| {
            asked.waive_report_data();
            Ok(())
        })
    }
}

/// Believes a simulator's root too, by its certificate, DER or PEM. For tests: the appraisal says simulated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coffer_question_simulated_root(
    question: *mut Question,
    bytes: *const u8,
    len: usize,
) -> Status {
    // SAFETY: as the header says.
    unsafe { say(question, |asked| asked.simulated_root(slice(bytes, len))) }
}

/// Judges, as of `now` in seconds since 1970. Evidence that is refused or not authentic is an appraisal too, with
/// COFFER_STATUS_OK; else `*appraisal` is NULL, as after any call about this question that failed to say something. Free it
/// with coffer_appraisal_free. The question can be put again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coffer_question_judge(
    question: *mut Question,
    now: i64,
    appraisal: *mut *mut Appraisal,
) -> Status {
    // SAFETY: null, or a place for a pointer.
    let Some(place) = (unsafe { appraisal.as_mut() }) else { return Status::Invalid };
    *place = ptr::null_mut();
    // SAFETY: as the header says.
    unsafe {
        with(question, |asked| {
            *place = Box::into_raw(Box::new(Appraisal::of(&asked.judge(UnixTime::from_secs(now))?)));
            Ok(())
        })
    }
}

impl Appraisal {
    fn of(said: &coffer_verifier::Appraisal) -> Self {
        let verdict = match said.verdict() {
            coffer_verifier::Verdict::Accepted => Verdict::Accepted,
            coffer_verifier::Verdict::Refused => Verdict::Refused,
            coffer_verifier::Verdict::NotAuthentic => Verdict::NotAuthentic,
        };
        let json = serde_json::to_string(said).expect("keys are words");
        Self { verdict, json: text(&json), why: text(&said.why()) }
    }
}

/// The verdict; of NULL, COFFER_VERDICT_NOT_AUTHENTIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coffer_appraisal_verdict(appraisal: *const Appraisal) -> Verdict {
    // SAFETY: null, or of coffer_question_judge.
    unsafe { appraisal.as_ref() }.map_or(Verdict::NotAuthentic, |appraisal| appraisal.verdict)
}

/// Verdict, claims, reasons and checks as JSON, in the form of `coffer verify --json`. Belongs to the appraisal.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coffer_appraisal_json(appraisal: *const Appraisal) -> *const c_char {
    // SAFETY: null, or of coffer_question_judge.
    unsafe { appraisal.as_ref() }.map_or(c"null".as_ptr(), |appraisal| appraisal.json.as_ptr())
}

/// Every reason against the evidence in one line; empty where it was accepted. Belongs to the appraisal.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coffer_appraisal_why(appraisal: *const Appraisal) -> *const c_char {
    // SAFETY: null, or of coffer_question_judge.
    unsafe { appraisal.as_ref() }.map_or(c"no appraisal".as_ptr(), |appraisal| appraisal.why.as_ptr())
}

/// Ends an appraisal and its texts. NULL is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coffer_appraisal_free(appraisal: *mut Appraisal) {
    if !appraisal.is_null() {
        // SAFETY: of coffer_question_judge, and not freed before.
        drop(unsafe { Box::from_raw(appraisal) });
    }
}
