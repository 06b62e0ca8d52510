/* careless REPORT LEAF CRL: a program that looks at no status. It judges good evidence, and then with a word the library did not
 * take: exit 0 if that gave no appraisal, and said why. */
#include <stdio.h>
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
    if (argc != 4) return 2;
    const char *any = "measurements = \"any\"", *mine = "measurement = []"; /* a key that is none */
    const int64_t then = 1789862400;
    coffer_question *question = coffer_question_new();
    coffer_appraisal *appraisal = NULL;
    coffer_question_evidence(question, file, read_file(argv[1]));
    coffer_question_certificates(question, file, read_file(argv[2]));
    coffer_question_crl(question, file, read_file(argv[3]));
    coffer_question_policy(question, any, strlen(any));
    coffer_question_waive_report_data(question);
    coffer_question_judge(question, then, &appraisal);
    if (coffer_appraisal_verdict(appraisal) != COFFER_VERDICT_ACCEPTED) return 3;
    coffer_appraisal_free(appraisal);
    coffer_question_policy(question, mine, strlen(mine));
    if (coffer_question_judge(question, then, &appraisal) != COFFER_STATUS_SPOILED) return 4;
    if (appraisal || coffer_appraisal_verdict(appraisal) == COFFER_VERDICT_ACCEPTED) return 5;
    printf("%s\n", coffer_question_error(question));
    coffer_question_free(question);
    return 0;
}
