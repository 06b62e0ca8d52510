/* Coffer's verifier: decides about SEV-SNP evidence, offline. Link with -lcoffer_verifier_c.
 *
 * A question is put together and judged; the appraisal says accepted, refused or not authentic, and why. Who makes a thing
 * frees it, with its own _free; a text belongs to what it was asked of, and ends with it. There is no global state: different
 * questions may be used by different threads at once, one question by one thread at a time, an appraisal by any.
 * Bytes are read during the call alone. No panic and no C++ exception leaves this library.
 * Written by cbindgen from verifier/c/src/sys/abi.rs; do not edit. */

#ifndef COFFER_VERIFIER_H
#define COFFER_VERIFIER_H

#include <stddef.h>
#include <stdint.h>

// How a call ended. It says nothing about evidence.
typedef enum {
  // Done.
  COFFER_STATUS_OK = 0,
  // An argument is not what it should be, or something that must be said was not; coffer_question_error says what and why.
  // Where it was to be said by this very call, the question is spoiled.
  COFFER_STATUS_INVALID = 1,
  // A defect of this library. The question is spoiled.
  COFFER_STATUS_INTERNAL = 2,
  // An earlier call about this question failed, so that it does not ask what was meant. Nothing was done, nothing will be
  // judged, and coffer_question_error says what failed first. Make a new question.
  COFFER_STATUS_SPOILED = 3,
} coffer_status;

// What the judge said. Zero is none of them.
typedef enum {
  // Authentic, and acceptable to the policy.
  COFFER_VERDICT_ACCEPTED = 1,
  // Authentic, and not acceptable.
  COFFER_VERDICT_REFUSED = 2,
  // Not shown to be what AMD, or a listed root, vouches for.
  COFFER_VERDICT_NOT_AUTHENTIC = 3,
} coffer_verdict;

// What the judge said.
typedef struct coffer_appraisal coffer_appraisal;

// What is asked, as far as it was said.
typedef struct coffer_question coffer_question;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// A question of which nothing is said yet, but that a revocation list is required and AMD's roots are believed.
// Free it with coffer_question_free.
coffer_question *coffer_question_new(void);

// Ends a question. NULL is none.
void coffer_question_free(coffer_question *question);

// Why the last call about this question did not end well, and what helps; empty where it did. Of a spoiled question: what
// spoiled it. Belongs to the question, until the next call about it.
const char *coffer_question_error(const coffer_question *question);

// The evidence: a report of 1184 bytes, an Azure HCL blob, a CMW record or a TSM report.
coffer_status coffer_question_evidence(coffer_question *question, const uint8_t *bytes, size_t len);

// The certificate table that a host gave with a bare report; after the evidence.
coffer_status coffer_question_cert_table(coffer_question *question, const uint8_t *bytes, size_t len);

// One more certificate in DER, or all of a PEM text. AMD's ARK, ASK and ASVK are known; the leaf is not.
coffer_status coffer_question_certificates(coffer_question *question, const uint8_t *bytes, size_t len);

// One more certificate revocation list in DER, or all of a PEM text.
coffer_status coffer_question_crl(coffer_question *question, const uint8_t *bytes, size_t len);

// Waives revocation. The appraisal says so.
coffer_status coffer_question_waive_crl(coffer_question *question);

// The policy, TOML in UTF-8; the word strict is the built-in one. There is no default.
coffer_status coffer_question_policy(coffer_question *question, const char *toml, size_t len);

// The 64 bytes that REPORT_DATA must hold, made from a challenge of the caller's own. There is no default.
coffer_status coffer_question_report_data(coffer_question *question, const uint8_t *bytes, size_t len);

// Waives REPORT_DATA: the report may be old, and made for anybody. The appraisal says so.
coffer_status coffer_question_waive_report_data(coffer_question *question);

// Believes a simulator's root too, by its certificate, DER or PEM. For tests: the appraisal says simulated.
coffer_status coffer_question_simulated_root(coffer_question *question, const uint8_t *bytes, size_t len);

// Judges, as of `now` in seconds since 1970. Evidence that is refused or not authentic is an appraisal too, with
// COFFER_STATUS_OK; else `*appraisal` is NULL, as after any call about this question that failed to say something. Free it
// with coffer_appraisal_free. The question can be put again.
coffer_status coffer_question_judge(coffer_question *question,
                                    int64_t now,
                                    coffer_appraisal **appraisal);

// The verdict; of NULL, COFFER_VERDICT_NOT_AUTHENTIC.
coffer_verdict coffer_appraisal_verdict(const coffer_appraisal *appraisal);

// Verdict, claims, reasons and checks as JSON, in the form of `coffer verify --json`. Belongs to the appraisal.
const char *coffer_appraisal_json(const coffer_appraisal *appraisal);

// Every reason against the evidence in one line; empty where it was accepted. Belongs to the appraisal.
const char *coffer_appraisal_why(const coffer_appraisal *appraisal);

// Ends an appraisal and its texts. NULL is none.
void coffer_appraisal_free(coffer_appraisal *appraisal);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* COFFER_VERIFIER_H */
