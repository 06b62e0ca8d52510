/* verify REPORT LEAF CRL POLICY UNIX-TIME: exit 0 and the claims, or 1 and the reason.
 * cc verify.c -Iinclude -Ltarget/release -lcoffer_verifier_c */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "coffer_verifier.h"

static uint8_t file[1 << 20];

static size_t read_file(const char *name) {
    FILE *from = fopen(name, "rb");
    size_t len = from ? fread(file, 1, sizeof file, from) : 0;
    if (from) fclose(from);
    return len;
}

int main(int argc, char **argv) {
    if (argc != 6) return 2;
    coffer_question *question = coffer_question_new();
    coffer_appraisal *appraisal = NULL;
    if (coffer_question_evidence(question, file, read_file(argv[1])) != COFFER_STATUS_OK
        || coffer_question_certificates(question, file, read_file(argv[2])) != COFFER_STATUS_OK
        || coffer_question_crl(question, file, read_file(argv[3])) != COFFER_STATUS_OK
        || coffer_question_policy(question, argv[4], strlen(argv[4])) != COFFER_STATUS_OK
        || coffer_question_waive_report_data(question) != COFFER_STATUS_OK /* a real program binds its own challenge */
        || coffer_question_judge(question, atoll(argv[5]), &appraisal) != COFFER_STATUS_OK)
        fprintf(stderr, "%s\n", coffer_question_error(question));
    int accepted = coffer_appraisal_verdict(appraisal) == COFFER_VERDICT_ACCEPTED;
    printf("%s\n", accepted ? coffer_appraisal_json(appraisal) : coffer_appraisal_why(appraisal));
    coffer_appraisal_free(appraisal);
    coffer_question_free(question);
    return accepted ? 0 : 1;
}
