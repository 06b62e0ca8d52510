# Appraisal policy for evidence: is this the report of a confidential VM of Azure?
#
# Runs behind the verifier's typed floor, which no Rego can lower. It admits what the paravisor (HCL) that Azure launches brings:
# a report under AMD's pinned roots, VMPL 0, no debugging, no migration agent, launched under one of the ID keys listed here, and bound to the data it
# travelled with, in which the vTPM's key stands. It does not show freshness: that is the vTPM quote's matter.
# The floor says which firmware will do: the built-in policy `strict` leaves Milan out.
# Input: docs/policies.md, "The input".
package coffer.azure_cvm

# Digests of the ID keys of Azure's launches, as genuine evidence of 2023 (Milan) and 2025 (Genoa) shows them. Another one may come with a new
# paravisor: copy this file and list it.
id_keys := {
	"0356215882a825279a85b300b0b742931d113bf7e32dde2e50ffde7ec743ca491ecdd7f336dc28a6e0b2bb57af7a44a3",
	"942fd93ebde6ea7a96efadeafc60f1c6b3d10e703b1dafd7555b92f7f3d32d0e006767648cba5b102af3d65756af4177",
}

default allow := false

allow if {
	input.result.claims.anchor.simulated == false
	input.result.claims.report.vmpl == 0
	input.result.claims.report.policy.debug == false
	input.result.claims.report.policy.migrate_ma == false
	launched_by_azure
	bound
	count(deny) == 0
}

launched_by_azure if input.result.claims.report.id_key_digest in id_keys

bound if input.result.claims.report_data_binding in {"attachment", "demanded"}

deny contains "anchor: the evidence does not rest on one of AMD's pinned roots" if {
	not input.result.claims.anchor.simulated == false
}

deny contains "vmpl: the report was not asked for at VMPL 0" if not input.result.claims.report.vmpl == 0

deny contains "guest-policy: debugging is allowed" if not input.result.claims.report.policy.debug == false

deny contains "guest-policy: a migration agent is allowed" if not input.result.claims.report.policy.migrate_ma == false

deny contains "id-key: the launch was not signed by a listed key of Azure's" if not launched_by_azure

deny contains "report-data: the report is not bound to the data it travelled with: give the whole HCL blob" if not bound
